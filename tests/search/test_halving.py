"""How trials are judged."""

import optuna
from helpers.configs import search
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.search.halving import PROMOTED, Halving, pruner
from lockstep.search.rules import Rules
from lockstep.search.rungs import Rungs


def study_of(values_at_rung, direction="maximize", rung=4):
    study = optuna.create_study(direction=direction)
    for value in values_at_rung:
        trial = study.ask()
        trial.report(0.5, 1)
        if value is not None:
            trial.report(value, rung)
    return study


def promoted(study, halving, which=None):
    """Judge trials that are at rung 4, best first; those that go on."""
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    at_rung = [t for t in study.get_trials() if t.last_step == 4 and (which is None or t.number in which)]
    gone_on = []
    for trial in sorted(at_rung, key=lambda t: sign * t.intermediate_values[4]):
        if not halving.prune(study, trial):
            gone_on.append(trial.number)
            study._storage.set_trial_user_attr(trial._trial_id, PROMOTED, 4)
    return sorted(gone_on)


def test_the_best_quarter_goes_on_of_those_that_have_been_at_the_rung():
    values = [0.1, 0.9, None, 0.3, 0.8, 0.2, None, 0.7, 0.6, 0.5]
    assert promoted(study_of(values), Halving(4)) == [1, 4]
    assert promoted(study_of(values, "minimize"), Halving(4)) == [0, 5]
    assert promoted(study_of(values), Halving(8)) == [1]


def test_one_goes_on_however_few_there_are_and_one_that_has_told_nothing_is_not_judged():
    study = study_of([0.3, 0.4])
    assert promoted(study, Halving(4)) == [1]
    study.ask()
    assert not Halving(4).prune(study, study.get_trials()[2])


def test_no_more_go_on_than_a_quarter_of_those_that_came_however_much_better_later_ones_are():
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.1, 0.2, 0.3, 0.4]
    study, halving = study_of([]), Halving(4)
    gone_on = []
    for start in (0, 4, 8):
        for value in values[start : start + 4]:
            trial = study.ask()
            trial.report(value, 4)
        gone_on += promoted(study, halving, range(start, start + 4))
    # The last four may not, though one of twelve more might: none of them is among the three best.
    assert gone_on == [3, 7]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30, unique=True), st.integers(2, 6))
def test_of_different_values_exactly_one_in_so_many_goes_on(values, factor):
    best_first = sorted(range(len(values)), key=lambda k: -values[k])
    expected = sorted(best_first[: max(1, len(values) // factor)])
    assert promoted(study_of(values), Halving(factor)) == expected


def test_as_many_finalists_go_on_however_few_there_are():
    values = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7]
    assert promoted(study_of(values), Halving(4, finalists=3)) == [1, 3, 5]
    assert promoted(study_of(values[:2]), Halving(4, finalists=3)) == [0, 1]


def test_the_others_are_optunas_and_without_rungs_nothing_is_pruned():
    def of(**changes):
        settings = search(**changes)
        return pruner(Rules(settings, Rungs.of(settings, 10, 781), 10, "name"))

    found = of(pruner="halving", finalists=2, reduction_factor=3)
    assert (found._finalists, found._reduction_factor) == (2, 3)
    found = of(pruner="hyperband", min_epochs=0.5, reduction_factor=3)
    assert isinstance(found, optuna.pruners.HyperbandPruner)
    assert (found._min_resource, found._max_resource, found._reduction_factor) == (500, 10_000, 3)
    found = of(pruner="median", min_epochs=2)
    assert isinstance(found, optuna.pruners.MedianPruner)
    assert found._n_warmup_steps == 1999
    for changes in ({"pruner": "none"}, {"pruner": "hyperband", "min_epochs": 10}):
        assert isinstance(of(**changes), optuna.pruners.NopPruner)
