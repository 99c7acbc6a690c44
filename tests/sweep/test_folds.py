"""A sweep over folds: each fold's run has the bits that it has alone, and the folds are repeats."""

import mlflow
import pytest
from helpers.configs import LOGREG, MLP, job, quiet
from helpers.faults import contents
from helpers.records import carried_out

from lockstep.cli.reproduce import reproduce
from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.run_request import RunRequest
from lockstep.sweep.ledger import Ledger
from lockstep.sweep.session import carry_out
from lockstep.tracking import sweeps
from lockstep.tracking.store import Store


def jobs(uri):
    settings = dict(folds=3, val_size=100, checkpoint_seconds=0.0, epochs=6)
    asked = [
        job(uri, f"model={model.name}", f"data.fold={fold}", model=model, fold=fold, **settings)
        for model in (LOGREG, MLP)
        for fold in range(3)
    ]
    return [RunRequest(quiet(request.config), request.overrides) for request in asked]


def by_fold(uri):
    """All that a store holds of runs, by their model and fold, whoever asked for them."""
    runs = [run for run in contents(uri, "digits", unique=False) if run["tags"]["lockstep.kind"] == "run"]
    for run in runs:
        del run["parent"]
    return {(run["params"]["model"], run["params"]["data.fold"]): run for run in runs}


def test_folds_are_repeats_and_have_the_bits_of_each_alone_also_once_resumed(uri, tmp_path, monkeypatch):
    receive = Ledger.receive

    def once(ledger, number, event):
        receive(ledger, number, event)
        if ledger._entries[1].history.epochs == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(Ledger, "receive", once)
        carried_out(jobs(uri), ["..."], launcher=LauncherConfig(n_jobs=1))
    standings = carry_out(jobs(uri), ["..."], launcher=LauncherConfig(n_jobs=2))
    alone = f"sqlite:///{tmp_path}/alone.db"
    for request in jobs(alone)[::2]:
        carried_out([request], None, launcher=LauncherConfig(n_jobs=1))
    swept = by_fold(uri)
    assert len(swept) == 6
    assert {key: swept[key] for key in by_fold(alone)} == by_fold(alone)
    assert len({run["data"][0] for run in swept.values()}) == 3  # other folds are other data

    client = mlflow.MlflowClient(uri)
    parent = client.get_run(standings.runs[0].run_id).data.tags["mlflow.parentRunId"]
    read = sweeps.read(Store(uri), parent)
    for rows in (standings.rows, read.rows):
        assert sorted((row.name, len(row.runs)) for row in rows) == [("logreg", 3), ("mlp", 3)]
        for row in rows:
            scores = [swept[row.name, str(fold)]["metrics"]["val/accuracy"][-1][1] for fold in range(3)]
            assert row.mean("val/accuracy") == pytest.approx(sum(scores) / 3)
    assert standings.winner.representative.params["data.fold"] == "0"
    assert read.swept == ("model",)
    assert read.winner.representative.run_id == standings.winner.representative.run_id
    assert reproduce(Store(uri), standings.runs[4].run_id).is_identical
