"""Searches as real commands, on digits."""

import shlex
from dataclasses import dataclass

import mlflow
import numpy as np
import pytest
import yaml
from helpers.clone import Clone
from helpers.searches import (
    DIGITS,
    ONE,
    SPACE,
    TWELVE,
    compare_study_with_store,
    has_the_bits_of_one_alone,
    memory_of,
    runs_of,
    study_of,
)
from optuna.trial import TrialState

from lockstep.cli.reproduce import reproduce
from lockstep.report import wording
from lockstep.tracking import sweeps
from lockstep.tracking.store import Store


@dataclass
class Searched:
    """A search by one worker, undisturbed: what it printed, its trials and its runs.

    Tests may add to the clone, so they read here what the search itself left.
    """

    clone: Clone
    out: str
    trials: list
    runs: list

    @property
    def parent(self):
        [parent] = {run.data.tags["mlflow.parentRunId"] for run in self.runs}
        return parent

    def run(self, is_pruned):
        return next(run for run in self.runs if ("lockstep.pruned_at" in run.data.tags) == is_pruned)


@pytest.fixture(scope="module")
def searched(tmp_path_factory, empty_store):
    clone = Clone(tmp_path_factory.mktemp("searched"), empty_store)
    code, out, err = clone.quick(*TWELVE)
    assert (code, err) == (0, "")
    return Searched(clone, out, study_of(clone).trials, runs_of(clone))


def test_trials_are_pruned_at_rungs_and_their_runs_say_so(searched):
    clone, out, trials, runs = searched.clone, searched.out, searched.trials, searched.runs
    assert len(trials) == len(runs) == 12
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert searched.parent
    by_number = {int(run.info.run_name.partition(":")[0]): run for run in runs}
    for trial in trials:
        run, rungs = by_number[trial.number], sorted(trial.intermediate_values)
        pruned_at = run.data.tags.get("lockstep.pruned_at")
        assert float(run.data.params["optim.lr"]) == trial.params["optim.lr"]
        if trial.state == TrialState.PRUNED:
            assert (pruned_at, rungs) in [("2.941", [2941]), ("8.823", [2941, 8823])]
        else:
            assert run.data.metrics["val/accuracy"] == trial.value
            assert (trial.state, pruned_at, rungs) == (TrialState.COMPLETE, None, [2941, 8823])
    states = [trial.state for trial in trials]
    assert states.count(TrialState.PRUNED) == 9
    # Of the first four three went on, the best of them.
    first = [trial.number for trial in trials[:4] if 8823 in trial.intermediate_values]
    best = sorted(trials[:4], key=lambda trial: -trial.intermediate_values[2941])[:3]
    assert first == sorted(trial.number for trial in best)
    compare_study_with_store(clone)
    best = max((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: t.value)
    results = min((clone.root / "outputs" / "sweeps").glob("*/*/optimization_results.yaml"))  # the first's
    found = yaml.safe_load(results.read_text())
    assert found["best_value"] == best.value
    assert found["best_params"] == best.params
    assert f"Best by val/accuracy: optim.lr={best.params['optim.lr']!r}" in out
    trained = sum(float(run.data.tags.get("lockstep.pruned_at", "10")) for run in runs)
    assert f"9 pruned after 2.941 or 8.823 epochs; {trained:.4g} of 120 epochs were trained" in out
    # The parent run and the terminal say how to repeat the search, and how to train the winner alone.
    parent = mlflow.MlflowClient(clone.store).get_run(searched.parent)
    assert shlex.split(parent.data.tags["lockstep.command"]) == ["python", "run.py", *TWELVE]
    [alone] = [
        line.partition(": ")[2] for line in out.splitlines() if line.startswith("To train the best run")
    ]
    words = shlex.split(alone)
    assert words[:2] == ["python", "run.py"]
    assert f"optim.lr={best.params['optim.lr']!r}" in words
    assert not any("interval" in word or word.startswith("hydra") for word in words)


def test_a_promoted_run_has_the_bits_of_one_that_never_paused(searched):
    for is_pruned in (False, True):
        run = searched.run(is_pruned)
        assert has_the_bits_of_one_alone(searched.clone, run)
        assert reproduce(Store(searched.clone.store), run.info.run_id).is_identical


@pytest.mark.parametrize(
    ("sampler", "pruner", "rungs"),
    [("gp", "median", [2000, 3000, 4000]), ("cmaes", "hyperband", [1500, 3000]), ("random", "none", [])],
)
def test_optunas_samplers_and_pruners(clone, sampler, pruner, rungs):
    code, out, err = clone.quick(
        *(*DIGITS, *ONE, "hydra.sweeper.n_trials=16", "hydra.sweeper.array_size=4", "trainer.epochs=5"),
        *("optim.lr=tag(log,interval(0.001,0.5))", "model.dropout=interval(0,0.5)"),
        *(f"hydra.sweeper.sampler={sampler}", f"hydra.sweeper.pruner={pruner}"),
        *("hydra.sweeper.min_epochs=1.5", "hydra.sweeper.reduction_factor=2"),
    )
    assert (code, err) == (0, "")
    compare_study_with_store(clone)
    trials = study_of(clone).trials
    gone = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert bool(gone) == bool(rungs)
    assert {max(trial.intermediate_values) for trial in gone} <= {*rungs}
    whole = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert all(list(trial.intermediate_values) == rungs for trial in whole)
    best = max(whole, key=lambda trial: trial.value)
    assert f"Best by val/accuracy: optim.lr={best.params['optim.lr']!r} " in out
    if pruner == "median":  # each was behind the median of those that had come to their end before it
        for trial in gone:
            epoch = max(trial.intermediate_values)
            others = [t.intermediate_values[epoch] for t in whole if t.number // 4 < trial.number // 4]
            assert len(others) >= 5
            assert max(trial.intermediate_values.values()) < np.median(others)


def test_the_same_command_again_trains_nothing_and_more_trials_add_to_it(searched):
    clone, before = searched.clone, memory_of(searched.clone)
    assert len(before) == 12
    code, out, err = clone.quick(*TWELVE)
    assert (code, err) == (0, "")
    assert "epoch " not in out.partition("run  ")[0]
    assert [line.split()[:4] for line in out.splitlines() if "FINISHED" in line] == [
        line.split()[:4] for line in searched.out.splitlines() if "FINISHED" in line
    ]
    assert memory_of(clone) == before
    code, _, err = clone.quick(*TWELVE, "hydra.sweeper.n_trials=14")
    assert (code, err) == (0, "")
    after = memory_of(clone)
    assert after[:12] == before
    members = [run for run in runs_of(clone) if run.data.tags["mlflow.parentRunId"] == searched.parent]
    assert len(after) == len(members) == 14


def test_a_sweep_that_asks_for_a_pruned_config_in_full_trains_it(searched):
    for is_pruned in (True, False):
        run = searched.run(is_pruned)
        own = [f"{key}={run.data.params[key]}" for key in ("optim.lr", "model.hidden_dim1", "model.dropout")]
        code, out, err = searched.clone.quick("-m", *DIGITS[2:], *own)
        assert (code, err) == (0, "")
        assert ("epoch 10/10" in out) == is_pruned


def test_a_dry_run_says_what_would_be_done_and_does_nothing(cold_clone):
    code, out, err = cold_clone.quick(*TWELVE, "dry_run=true")
    assert (code, err) == (0, "")
    assert " ".join(out.split()) == (
        "A search over optim.lr, model.hidden_dim1, model.dropout: 12 trials, 4 to an array, on 1 worker,"
        " compared after 2.941 and 8.823 of 10 epochs."
    )
    assert not (cold_clone.root / "outputs").exists()


def test_the_best_are_confirmed_over_seeds_and_all_readers_name_the_same_winner(clone):
    code, out, err = clone.quick(
        *(*DIGITS, *ONE, *SPACE[:2]),
        *("hydra.sweeper.n_trials=8", "hydra.sweeper.confirm_seeds=3", "hydra.sweeper.confirm_best=2"),
        *("trainer.epochs=5", "hydra.sweeper.metric=val/loss", "hydra.sweeper.pruner=median"),
    )
    assert (code, err) == (0, "")
    runs = runs_of(clone)
    seeds = [run.data.params["seed"] for run in runs]
    assert (seeds.count("0"), seeds.count("1"), seeds.count("2")) == (8, 2, 2)
    confirmed = [line.split() for line in out.splitlines() if "±" in line]
    assert [row.count("3") for row in confirmed] == [1, 1]
    losses = {}
    for run in runs:
        if "lockstep.pruned_at" not in run.data.tags:
            losses.setdefault(run.data.params["optim.lr"], []).append(run.data.metrics["val/loss"])
    best = min((lr for lr in losses if len(losses[lr]) == 3), key=lambda lr: np.mean(losses[lr]))
    assert f"Best by val/loss: optim.lr={best} " in out
    # What Hydra's users read, the parent's tags and metrics, the report, the logged model.
    [results] = (clone.root / "outputs" / "sweeps").glob("*/*/optimization_results.yaml")
    found = yaml.safe_load(results.read_text())
    assert repr(found["best_params"]["optim.lr"]) == best
    assert found["best_value"] == pytest.approx(np.mean(losses[best]))
    store = Store(clone.store)
    of_best = {run.info.run_id: run for run in runs if run.data.params["optim.lr"] == best}
    [parent] = store.search([runs[0].info.experiment_id], "tags.`lockstep.kind` = 'sweep'")
    assert set(parent.data.tags["lockstep.winner_runs"].split(",")) == set(of_best)
    assert of_best[parent.data.tags["lockstep.winner"]].data.params["seed"] == "0"
    assert parent.data.metrics["best/val/loss"] == pytest.approx(found["best_value"])
    sweep = sweeps.read(store, parent.info.run_id)
    assert {run.run_id for run in sweep.winner.runs} == {run.run_id for run in sweep.rows[0].runs}
    assert {run.run_id for run in sweep.winner.runs} == set(of_best)
    assert len(sweep.runs) == 12
    assert sweep.scales == {"optim.lr": "log"}
    assert f"Best by validation loss: lr={wording.shown(best)}" in wording.sentence(sweep)
    assert [run.info.run_id for run in runs if run.outputs.model_outputs] == [sweep.stored_winner]


def best_by(out):
    [line] = [line for line in out.splitlines() if line.startswith("Best by val/accuracy: optim.lr=")]
    return line.partition("optim.lr=")[2]


def test_a_small_space_is_tried_in_full_and_what_was_deleted_is_trained_again(clone):
    """The sampler's first two trials are equal (optim.lr=0.2): the second one must not count."""
    arguments = (
        *DIGITS,
        *ONE,
        "trainer.epochs=2",
        "optim.lr=choice(0.1,0.2)",
        "hydra.sweeper.sampler=random",
    )
    arguments += ("hydra.sweeper.pruner=none", "tracking.pictures=none")
    code, out, err = clone.quick(*arguments, "hydra.sweeper.n_trials=2")
    assert (code, err) == (0, "")
    first = {run.data.params["optim.lr"]: run.info.run_id for run in runs_of(clone)}
    assert set(first) == {"0.1", "0.2"}
    client = mlflow.MlflowClient(clone.store)
    client.delete_run(first[best_by(out)])
    code, again, err = clone.quick(*arguments, "hydra.sweeper.n_trials=2")
    assert (code, err) == (0, "")
    second = {run.data.params["optim.lr"]: run.info.run_id for run in runs_of(clone)}
    changed = [lr for lr in first if first[lr] != second[lr]]
    assert changed == [best_by(out)] == [best_by(again)]
    # There are no more than two points, and all of them are trained again.
    code, out, err = clone.quick(*arguments, "hydra.sweeper.n_trials=5", "rerun=true")
    assert (code, err) == (0, "")
    third = [run for run in runs_of(clone) if run.info.run_id not in second.values()]
    assert sorted(run.data.params["optim.lr"] for run in third) == ["0.1", "0.2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("optim.lr=interval(0.1,0.1)",), "optim.lr=interval(0.1,0.1): an empty interval: 0.1 is not less"),
        (("optim.lr=tag(log,interval(0,1))",), "there is no logarithm of 0"),
        (("optim.lr=interval(-1,1)",), "optim.lr=-1.0: must be greater than 0"),
        (("optim.l=0.1,0.2",), "optim.l=0.1: not a setting of optim=sgd; it has lr,"),
        (("model=choice(mlp,mpl)",), "model=mpl: not one of cnn, logreg, mlp, module; did you mean mlp?"),
        (
            ("hydra.sweeper.metric=val/acc",),
            "hydra.sweeper.metric=val/acc: must be 'val/accuracy', 'val/loss', 'val/balanced_accuracy' or"
            " 'val/f1_macro'; did you mean val/accuracy?",
        ),
        (
            ("data.folds=3", "data.fold=range(0,3)"),
            "data.fold=range(0,3): trials are compared on the same instances: give one fold",
        ),
        (("hydra.sweeper.metric=test/accuracy",), "test figures decide nothing in a search"),
        (("hydra.sweeper.sampler=tep",), "hydra.sweeper.sampler=tep: must be 'tpe', 'gp', 'cmaes' or"),
        (("hydra.sweeper.n_trials=0",), "hydra.sweeper.n_trials=0: must be greater than or equal to 1"),
        (("data.val_size=0",), "data.val_size=0: a search decides by a validation split, never by the test"),
        (("hydra/launcher=basic",), "hydra/sweeper=search: needs hydra/launcher=lockstep"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_nothing_is_written(cold_clone, arguments, message):
    code, out, err = cold_clone.quick(*DIGITS, "optim.lr=interval(0.1,0.2)", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (cold_clone.root / "outputs").exists()
