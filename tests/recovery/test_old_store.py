"""A store with an interrupted sweep, written by commit b581169 (see tests/fixtures/README.md).

Users have such stores. Their runs are of numerics version 2: every later version recognises finished ones as
stored and reproduces them as nearly as its numerics do; interrupted ones are trained anew.
"""

import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from helpers import old_store
from helpers.searches import memory_of
from pyarrow import parquet

from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.data.description import iterations_per_epoch
from lockstep.recovery.run_folder import folders
from lockstep.tracking import sweeps
from lockstep.tracking.store import Store
from lockstep.training.loop import train

ONE_WORKER = "hydra.launcher.n_jobs=1"
"""Added to the commands: worker processes take longer to start than all the training here."""

TOLERANCE = 1e-5
"""Of losses (relative) and weights (which are of order 1): sums are rounded differently. Among the
instruction sets that torch and MKL can use on the processor that recorded, 100 epochs differ by 2.4e-7 in
losses, 3.0e-7 in weights."""

ONE_INSTANCE = 1 / 64 + 1e-9
"""Of accuracies: rounding may decide the class of one instance of a minibatch of 64."""


@pytest.fixture
def old(make_clone):
    clone = make_clone()
    old_store.unpack(clone.root)
    return clone


def runs_of(clone, experiment):
    """The experiment's training runs."""
    client = mlflow.MlflowClient(clone.store)
    [experiment_id] = [e.experiment_id for e in client.search_experiments() if e.name == experiment]
    return client.search_runs([experiment_id], "tags.`lockstep.kind` = 'run'", max_results=1000)


def searched(clone):
    """The runs of searches, the only ones with a validation split."""
    return [run for run in runs_of(clone, "digits") if run.data.params["data.val_size"] == "300"]


def everything_of(runs):
    """Each run's status, times, params, metrics and tags; as text, in which NaN equals NaN.

    Its colour in MLflow's charts is left out: it gets one with the first report that shows it.
    """
    data = {run.info.run_id: run.data.to_dictionary() for run in runs}
    for of_run in data.values():
        of_run["tags"].pop("mlflow.runColor", None)
    return {run.info.run_id: f"{run.info} {data[run.info.run_id]}" for run in runs}


def settings_of(run):
    return run.data.params["trainer.epochs"], run.data.params["optim"]


def artifacts_of(run):
    return Path(run.info.artifact_uri.removeprefix("file://"))


def assert_same(name, got, want):
    """Fail unless two vectors of numbers are as nearly equal as two versions of the numerics can be."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape, name
    if "accuracy" in name:
        assert np.abs(got - want).max() <= ONE_INSTANCE, name
    else:
        np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def assert_same_artifacts(run, loss, accuracy, weights):
    """Fail unless a run's history and weights are these; losses and accuracies in the history's order."""
    table = parquet.read_table(artifacts_of(run) / "history.parquet")
    assert_same("loss", table["loss"], loss)
    assert_same("accuracy", table["accuracy"], accuracy)
    path = artifacts_of(run) / "model" / "state_dict.pt"
    stored = torch.load(path, weights_only=True) if path.exists() else {}
    assert weights.keys() == stored.keys()
    for name, tensor in stored.items():
        assert_same(name, weights[name], tensor)


@pytest.mark.parametrize(
    ("command", "code", "n_rows"),
    [
        pytest.param(old_store.MORE_SEEDS, 0, 2, id="grid with repeats, trained by two sweeps"),
        pytest.param(("-m", *old_store.SINGLE), 0, 1, id="single run"),
        pytest.param(old_store.DIVERGING, 1, 2, id="diverged"),
        pytest.param(old_store.SEARCH, 0, 1, id="search"),
    ],
)
def test_the_same_command_trains_nothing_again(old, command, code, n_rows):
    before = everything_of(runs_of(old, "digits"))
    got, out, err = old.quick(*command, ONE_WORKER)
    assert got == code, err
    assert everything_of(runs_of(old, "digits")) == before
    assert "  epoch " not in out
    assert len(re.findall(r"  stored  F(?:INISH|AIL)ED", out)) == n_rows, out
    assert re.search(r"^\d runs? (is|are) of numerics version 2, which an earlier", out, re.MULTILINE), out


def test_a_search_goes_on_by_its_own_rules_and_anew_by_todays(old):
    """Version 0.1 compared trials by their metric, after whole epochs: here after 1 and after 2 of 4."""
    more = (*old_store.SEARCH, ONE_WORKER, "hydra.sweeper.n_trials=10")
    before = memory_of(old)
    code, out, err = old.quick(*more)
    assert (code, err) == (0, "")
    said = "it goes on by its rules: compared after 1 and 2 of 4 epochs, by val/accuracy as it is;"
    assert said in " ".join(out.split())
    after = memory_of(old)
    assert (len(before), len(after), after[:4]) == (4, 10, before)
    client = mlflow.MlflowClient(old.store)
    runs = {run.info.run_name: run for run in searched(old)}
    for number, _, _, told, _ in after[4:]:
        [run] = [run for name, run in runs.items() if name.startswith(f"{number}: ")]
        recorded = client.get_metric_history(run.info.run_id, "val/accuracy")
        by_epoch = dict(enumerate((point.value for point in sorted(recorded, key=lambda p: p.step)), 1))
        assert told == {epoch: by_epoch[epoch] for epoch in (1, 2) if epoch in by_epoch}
        assert run.data.tags.get("lockstep.pruned_at", "4") in {"1", "2", "4"}
    assert len({run.data.tags["mlflow.parentRunId"] for run in runs.values()}) == 1
    [study] = (old.root / "outputs" / "studies").glob("*/optuna.log")
    code, out, err = old.quick(*old_store.SEARCH, ONE_WORKER, "rerun=true")
    assert (code, err) == (0, "")
    assert "an earlier version" not in out
    assert study.exists() and len(list((old.root / "outputs" / "studies").glob("*/optuna.log"))) == 2
    parents = [run.data.tags["mlflow.parentRunId"] for run in searched(old)]
    assert sorted(parents.count(parent) for parent in set(parents)) == [4, 10]
    again = everything_of(searched(old))
    code, out, err = old.quick(*old_store.SEARCH, ONE_WORKER)  # the new one's
    assert (code, err, everything_of(searched(old))) == (0, "", again)
    assert "an earlier version" not in out


def test_an_interrupted_sweep_keeps_what_had_ended_and_trains_the_others_anew(old):
    unfinished = old.root / "outputs" / "unfinished"
    checkpoints = [folder.checkpoint() for folder in folders(unfinished)]
    assert {history.epochs for history, _ in filter(None, checkpoints)} == {68, 137}
    before = {run.info.run_id: run.info for run in runs_of(old, "interrupted")}
    assert sorted(info.status for info in before.values()) == ["FINISHED", "FINISHED", "RUNNING", "RUNNING"]
    code, out, err = old.quick(*old_store.INTERRUPTED, ONE_WORKER)
    assert (code, err) == (0, "")
    for name in ("epochs=160 sgd", "epochs=160 adam"):
        assert out.count(f"{name}: interrupted under numerics version 2; it is trained anew\n") == 1
    assert len(re.findall(r"  stored  FINISHED", out)) == 2
    runs = {run.info.run_id: run for run in runs_of(old, "interrupted")}
    new = [run for run_id, run in runs.items() if run_id not in before]
    assert [run.info.status for run in new] == ["FINISHED"] * 2
    assert {run.data.tags["lockstep.numerics_version"] for run in new} == {"3"}
    for run_id, info in before.items():
        if info.status == "FINISHED":
            assert str(runs[run_id].info) == str(info)
        else:
            assert runs[run_id].info.status == "KILLED"
    client = mlflow.MlflowClient(old.store)
    [parent] = {run.data.tags["mlflow.parentRunId"] for run in runs.values()}
    [experiment] = {run.info.experiment_id for run in runs.values()}
    [sweep] = client.search_runs([experiment], "tags.`lockstep.kind` = 'sweep'")
    assert (sweep.info.run_id, sweep.info.status) == (parent, "FINISHED")
    assert [path.name for path in unfinished.iterdir()] == ["claims"]
    recorded = sweeps.read(Store(old.store), parent)
    assert [(run.status, run.numerics_version) for run in recorded.runs] == [("FINISHED", 2)] * 2 + [
        ("FINISHED", 3)
    ] * 2

    undisturbed = {settings_of(run): run for run in runs_of(old, "undisturbed")}
    assert len(undisturbed) == 4
    for run in new:
        other = undisturbed[settings_of(run)]
        table = parquet.read_table(artifacts_of(other) / "history.parquet")
        weights = torch.load(artifacts_of(other) / "model" / "state_dict.pt", weights_only=True)
        assert_same_artifacts(run, table["loss"], table["accuracy"], weights)
        later = {"test/balanced_accuracy", "test/f1_macro"}
        assert run.data.metrics.keys() == other.data.metrics.keys() | later
        for key in set(other.data.metrics) - {"time/train_seconds"}:
            got, want = (
                sorted((p.step, p.value) for p in client.get_metric_history(r.info.run_id, key))
                for r in (run, other)
            )
            assert [step for step, _ in got] == [step for step, _ in want]
            assert_same(key, [value for _, value in got], [value for _, value in want])


def test_a_run_is_reproduced_as_nearly_as_todays_numerics_do(old):
    run = next(run for run in runs_of(old, "digits") if run.info.run_name == "lr=0.05 seed=1")
    code, out, err = old.verb("reproduce", run.info.run_id)
    assert err == ""
    assert "how Lockstep computes" not in out  # what it says of another run key
    assert out.startswith("lr=0.05 seed=1: identical, all" if code == 0 else "lr=0.05 seed=1: not the same")
    assert "\n  trained with numerics version 2, here 3: the same bits can't be expected\n" in out


def test_every_run_has_its_key_and_nearly_its_numbers_today(old):
    runs = runs_of(old, "digits")
    assert len(runs) == 16
    for run in runs:
        config = RunConfig.from_yaml(artifacts_of(run) / "config.yaml", old.store)
        dataset = datasets.load(config.data)
        assert config.run_keys(dataset.description.digest)[2] == run.data.tags["lockstep.run_key"]
        pruned_at = run.data.tags.get("lockstep.pruned_at")
        steps = iterations_per_epoch(config.data, dataset.description)
        [again] = train([config], dataset, pause_at=int(pruned_at) * steps if pruned_at else None)
        evaluations = again.history.evaluations
        assert_same_artifacts(
            run,
            [*again.history.loss_T, *(evaluation.loss for evaluation in evaluations)],
            [*again.history.accuracy_T, *(evaluation.accuracy for evaluation in evaluations)],
            again.network.state_dict() if run.info.status == "FINISHED" and not pruned_at else {},
        )
