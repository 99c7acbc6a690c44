"""When trials are judged, and how halving judges them."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.config import SearchConfig
from lockstep.rungs import Halving, pruner, rungs


def search(**changes):
    values = {
        **{"n_trials": 8, "timeout": None, "sampler": "random", "metric": "val/accuracy", "direction": None},
        **{"seed": 0, "array_size": 4, "pruner": "halving", "min_epochs": 1, "reduction_factor": 4},
        **{"confirm_seeds": 0, "confirm_best": 3},
    }
    return SearchConfig(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "epochs", "expected"),
    [
        ({}, 10, [1, 4]),
        ({}, 16, [1, 4]),
        ({}, 17, [1, 4, 16]),
        ({"reduction_factor": 3}, 10, [1, 3, 9]),
        ({"min_epochs": 2, "reduction_factor": 2}, 10, [2, 4, 8]),
        ({"min_epochs": 10}, 10, []),
        ({"pruner": "hyperband"}, 10, [1, 4]),
        ({"pruner": "median", "min_epochs": 3}, 6, [3, 4, 5]),
        ({"pruner": "none"}, 10, []),
    ],
)
def test_rungs(changes, epochs, expected):
    assert rungs(search(**changes), epochs) == expected


def study_of(values_at_rung, direction="maximize", rung=4):
    study = optuna.create_study(direction=direction)
    for value in values_at_rung:
        trial = study.ask()
        trial.report(0.5, 1)
        if value is not None:
            trial.report(value, rung)
    return study


def promoted(study, halving):
    trials = study.get_trials()
    return [t.number for t in trials if t.last_step == 4 and not halving.prune(study, t)]


def test_the_best_quarter_goes_on_of_those_that_have_been_at_the_rung():
    values = [0.1, 0.9, None, 0.3, 0.8, 0.2, None, 0.7, 0.6, 0.5]
    assert promoted(study_of(values), Halving(4)) == [1, 4]
    assert promoted(study_of(values, "minimize"), Halving(4)) == [0, 5]
    assert promoted(study_of(values), Halving(8)) == [1]


def test_one_goes_on_however_few_there_are_and_one_that_has_told_nothing_is_not_judged():
    assert promoted(study_of([0.3, 0.4]), Halving(4)) == [1]
    study = optuna.create_study(direction="maximize")
    assert not Halving(4).prune(study, study.get_trials()[0] if study.ask().number else study.trials[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30, unique=True), st.integers(2, 6))
def test_of_different_values_exactly_one_in_so_many_goes_on(values, factor):
    best_first = sorted(range(len(values)), key=lambda k: -values[k])
    expected = sorted(best_first[: max(1, len(values) // factor)])
    assert promoted(study_of(values), Halving(factor)) == expected


def test_the_others_are_optunas():
    kinds = {name: type(pruner(search(pruner=name), 10)) for name in ("hyperband", "median", "none")}
    assert kinds == {
        "hyperband": optuna.pruners.HyperbandPruner,
        "median": optuna.pruners.MedianPruner,
        "none": optuna.pruners.NopPruner,
    }
