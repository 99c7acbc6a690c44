"""Trials of a search that is killed, and trials that fail."""

import pandas as pd
import pytest
from helpers.faults import EPOCH, contents, survive
from helpers.numerics import BEFORE, TODAY, set_version
from helpers.searches import (
    DIGITS,
    ONE,
    SPACE,
    TWELVE,
    compare_study_with_store,
    config_of,
    has_the_bits_of_one_alone,
    memory_of,
    per_epoch,
    runs_of,
    study_of,
)
from optuna.trial import TrialState

import lockstep
from lockstep.cli.reproduce import reproduce
from lockstep.sweep.ledger import Ledger
from lockstep.tracking.store import Store

# Some trials stop early: before, at or behind a rung.
RUNGS = ("hydra.sweeper.min_epochs=2.5", "hydra.sweeper.finalists=2")  # amid epochs: 2.5, 7.5, 22.5, ...
PATIENT = ("trainer.epochs=100", "trainer.patience=3", "trainer.monitor=val/accuracy")
CONFIRMED = ("hydra.sweeper.confirm_seeds=3", "hydra.sweeper.confirm_best=2")


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        (PATIENT, None),
        pytest.param(("trainer.epochs=400",), 0.1, marks=pytest.mark.faults),
        pytest.param(("trainer.epochs=400", *CONFIRMED), 0.1, marks=pytest.mark.faults),
    ],
)
def test_a_killed_search_goes_on_as_if_nothing_had_been(make_clone, kills, settings, share):
    arguments = (*TWELVE, *RUNGS, *settings, "trainer.checkpoint_seconds=0.1")
    want, clone = make_clone(), make_clone()
    code, out, err = want.quick(*arguments)
    assert (code, err) == (0, "")
    if settings == PATIENT:
        stopped_trials_are_complete(want, out)
    survive(clone, arguments, round(kills * share) if share else 3, out.count(EPOCH), seed=3)
    assert memory_of(clone) == memory_of(want)
    assert contents(clone.store, "digits") == contents(want.store, "digits")
    assert [path.name for path in (clone.root / "outputs" / "unfinished").iterdir()] == ["claims"]


def stopped_trials_are_complete(clone, out):
    """Fails unless trials that stopped early are complete, with their best epoch's score; and some did."""
    runs = {int(run.info.run_name.partition(":")[0]): run for run in runs_of(clone)}
    stopped = []
    for trial in study_of(clone).trials:
        run = runs[trial.number].data
        if trial.state == TrialState.PRUNED:
            assert "lockstep.restored_epoch" not in run.tags
            continue
        config, folder = config_of(runs[trial.number])
        kept = pd.read_parquet(folder / "history.parquet")
        kept = kept[(kept.split == "val") & (kept.iteration % per_epoch(config) == 0)]
        scores = dict(enumerate(kept.accuracy, 1))
        best = int(run.tags["lockstep.restored_epoch"])
        assert scores[best] == max(scores.values()) == run.metrics["val/accuracy"] == trial.value
        assert next(epoch for epoch in scores if scores[epoch] == scores[best]) == best
        if len(scores) < 100:
            assert int(run.tags["lockstep.stopped_at"]) == max(scores) == best + 3
            stopped.append(runs[trial.number])
    assert stopped
    assert f"{len(stopped)} stopped early" in out
    # The last one has paused at a rung, so its best epoch's weights may come from a checkpoint.
    latest = max(stopped, key=lambda run: int(run.data.tags["lockstep.stopped_at"]))
    assert reproduce(Store(clone.store), latest.info.run_id).is_identical


def test_a_search_of_an_earlier_numerics_version_keeps_its_trials(clone, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(clone.root))
    settings = {"n_trials": 8, "array_size": 4, "finalists": 1}

    def search():
        stream = ("data=digits", "data.val_size=300", "tracking.pictures=none", "trainer.epochs=4")
        return lockstep.search(*stream, *ONE, SPACE[0], **settings)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as before, pytest.raises(KeyboardInterrupt):
        set_version(before, BEFORE)
        before.setattr(Ledger, "prune", interrupted)  # three trials are to be pruned, which is not done
        search()
    first = {run.info.run_id for run in runs_of(clone)}
    found = search()
    of_before = [run for run in runs_of(clone) if run.info.run_id in first]
    assert {run.data.tags["lockstep.numerics_version"] for run in of_before} == {str(BEFORE)}
    ends = sorted((run.info.status, "lockstep.pruned_at" in run.data.tags) for run in of_before)
    assert ends == [("FINISHED", True)] * 3 + [("KILLED", False)]
    assert len(study_of(clone).trials) == len(found.runs) == 8
    assert [run.numerics_version for run in found.runs].count(BEFORE) == 3
    assert {run.status for run in found.runs} == {"FINISHED"}
    assert found.winner.numerics_version == TODAY
    assert [path.name for path in (clone.root / "outputs" / "unfinished").iterdir()] == ["claims"]
    assert [run.is_stored for run in search().runs] == [True] * 8


@pytest.mark.faults
def test_a_killed_search_with_two_workers_loses_nothing(make_clone, kills):
    """Which trials share an array, and so which go on, is the workers' luck; what they come to is not."""
    clone = make_clone()
    arguments = (*DIGITS, *SPACE, "hydra.launcher.n_jobs=2", "hydra.sweeper.n_trials=16")
    arguments += ("hydra.sweeper.array_size=4", "trainer.epochs=400", "trainer.checkpoint_seconds=0.1")
    # At least 400 lines are printed: of the trial that halving promotes to the end.
    survive(clone, arguments, max(3, kills // 10), lines=400, seed=4)
    assert len(study_of(clone).trials) == 16
    compare_study_with_store(clone)
    runs = runs_of(clone)
    assert len({run.data.tags["lockstep.run_key"] for run in runs}) == len(runs) == 16
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs}) == 1
    assert all(has_the_bits_of_one_alone(clone, run) for run in runs)
    assert [path.name for path in (clone.root / "outputs" / "unfinished").iterdir()] == ["claims"]


def test_trials_that_fail_do_not_end_the_search_and_options_lack_keys(clone):
    code, out, err = clone.quick(
        *(*DIGITS, *ONE),
        "hydra.sweeper.n_trials=10",
        "hydra.sweeper.sampler=random",
        "trainer.epochs=4",
        "model=choice(logreg,mlp)",
        "optim=choice(sgd,adamw)",
        "optim.lr=choice(0.05,1e20)",
        "optim.momentum=0.8",
        "model.activation=gelu",
    )
    assert code == 1
    assert "diverged: the loss was not finite" in err
    runs = runs_of(clone)
    states = [run.info.status for run in runs]
    assert {"FINISHED", "FAILED"} == set(states)
    for run in runs:
        params = run.data.params
        assert params.get("model.activation") == ("gelu" if params["model"] == "mlp" else None)
        assert params.get("optim.momentum") == ("0.8" if params["optim"] == "sgd" else None)
        assert run.info.status == "FINISHED" or params["optim.lr"] == "1e+20"
    # All eight possible configs were trained, none of them twice; trials that repeat one don't count.
    assert len({run.data.tags["lockstep.run_key"] for run in runs}) == len(runs) == 8
    assert len(study_of(clone).trials) >= 8
    assert "Best by val/accuracy: " in out
