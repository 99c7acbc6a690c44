"""Runs with other patiences in one sweep: all that is recorded of them is of the epoch that they restored."""

from pathlib import Path

import mlflow
import pytest
from helpers.configs import LOGREG, MLP, job, sgd, with_pictures
from helpers.records import carried_out, statuses

from lockstep.cli.reproduce import reproduce
from lockstep.config.launcher_config import LauncherConfig
from lockstep.data.datasets import load
from lockstep.recorded import Run
from lockstep.results import predictions_file
from lockstep.sweep.ledger import Ledger
from lockstep.tracking.recorded_run import result_of
from lockstep.tracking.store import Store
from lockstep.training.loop import train

FIGURES = ("val/loss", "val/accuracy", "test/loss", "test/accuracy", "test/accuracy_best")


@pytest.fixture
def jobs(uri):
    settings = {"optim": sgd(1.0), "epochs": 12, "val_size": 100}
    runs = [
        (LOGREG, 2, "val/loss"),
        (LOGREG, 1, "val/accuracy"),
        (MLP, None, "val/loss"),
        (LOGREG, 9, "val/loss"),
    ]
    return [
        with_pictures(
            job(uri, f"patience={patience}", model=model, patience=patience, monitor=monitor, **settings),
            "best",
        )
        for model, patience, monitor in runs
    ]


def test_a_sweep_of_patiences_reports_each_runs_best_epoch_everywhere(uri, jobs, monkeypatch):
    sizes, task = [], Ledger.task
    monkeypatch.setattr(
        Ledger, "task", lambda ledger, runs, *args: sizes.append(len(runs)) or task(ledger, runs, *args)
    )
    results = carried_out(jobs, ["patience=..."], launcher=LauncherConfig(n_jobs=1))
    assert sizes == [4]  # one array
    client, dataset = mlflow.MlflowClient(uri), load(jobs[0].config.data)
    ends = []
    for request, result in zip(jobs, results, strict=True):
        config = request.config
        [alone] = train([config], dataset)
        restored = alone.history.restored_epoch
        assert (result.stopped_at, result.restored_epoch) == (alone.stopped_at, restored)
        run = client.get_run(result.run_id)
        epochs = {"stopped_at": alone.stopped_at, "restored_epoch": restored}
        for tag, epoch in epochs.items():
            assert run.data.tags.get(f"lockstep.{tag}") == (None if epoch is None else str(epoch))
        patience = f", patience {config.trainer.patience} ({config.trainer.monitor})," if restored else ","
        assert f"; 12 epochs{patience} float32" in run.data.tags["mlflow.note.content"]
        summary = alone.history.summary()
        at = {split: alone.history.of(split)[(restored or 12) - 1] for split in ("val", "test")}
        assert {key: run.data.metrics[key] for key in FIGURES} == {key: summary[key] for key in FIGURES}
        assert {key: result.metrics[key] for key in FIGURES} == {key: summary[key] for key in FIGURES}
        assert (summary["val/loss"], summary["test/accuracy"]) == (at["val"].loss, at["test"].accuracy)
        recorded = Run(Store(uri), result_of(run))
        assert (recorded.stopped_at, recorded.restored_epoch) == (alone.stopped_at, restored)
        for name, tensor in recorded.network().state_dict().items():
            assert tensor.equal(alone.network.state_dict()[name])
        folder = Path(run.info.artifact_uri.removeprefix("file://"))
        for split, predicted in predictions_file.read(folder / predictions_file.FILE).items():
            assert predicted.accuracy == at[split].accuracy
        ends.append((alone.history.epochs, restored))
    assert ends[0][0] < 12 and ends[1][0] < 12
    assert [epoch for _, epoch in ends][2] is None
    assert ends[3][0] == 12 > ends[3][1]  # it trained to its end, and restored its best epoch
    for result in (results[0], results[3]):
        assert reproduce(Store(uri), result.run_id).is_identical
    stored = carried_out(jobs, ["patience=..."], launcher=LauncherConfig(n_jobs=1))
    assert statuses(stored) == [("FINISHED", True)] * 4
    assert [(run.stopped_at, run.restored_epoch) for run in stored] == [
        (run.stopped_at, run.restored_epoch) for run in results
    ]
