"""A data file that is rewritten while its sweep trains: each run is recorded with what it was trained on."""

import mlflow
import numpy as np
import pytest
from helpers.configs import LOGREG, job, with_pictures
from helpers.data_files import save
from helpers.records import carried_out, statuses

from lockstep.cli import leftovers
from lockstep.config.data_config import ArraysConfig
from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.run_request import RunRequest
from lockstep.data import sources
from lockstep.recovery.run_folder import unfinished
from lockstep.sweep import session
from lockstep.sweep.ledger import Ledger


def arrays(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    return dict(x_train=x, y_train=y, x_test=x[:10] + 0.1, y_test=y[:10])


@pytest.fixture
def sweep(uri, tmp_path):
    stream = {"batch_size": 8, "drop_last": True, "val_size": 0, "shuffle_seed": 0}
    data = ArraysConfig(name="arrays", path=str(tmp_path / "own.npz"), **stream)
    save(tmp_path / "own.npz", **arrays(0))

    def carry_out(*seeds):
        jobs = [with_pictures(job(uri, f"seed={s}", model=LOGREG, seed=s, epochs=3), "none") for s in seeds]
        jobs = [RunRequest(j.config.model_copy(update={"data": data}), j.overrides) for j in jobs]
        return carried_out(jobs, ["..."], folder=tmp_path / "sweep", launcher=LauncherConfig(n_jobs=1))

    carry_out.data = data
    return carry_out


def rewriting(patch, tmp_path, interrupt=False):
    """Let a file of noise replace the data after the first epoch."""
    receive = Ledger.receive

    def received(ledger, number, event):
        receive(ledger, number, event)
        if ledger._entries[number].history.epochs == 1:
            save(tmp_path / "own.npz", **arrays(1))
            sources._load_arrays.cache_clear()  # as where many data sets are swept
            if interrupt:
                raise KeyboardInterrupt

    patch.setattr(Ledger, "receive", received)


def digests(uri):
    """The data sets' digests in the store, and whether a run's key is of the digest that it has."""
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs(["1"], "tags.`lockstep.kind` = 'run'")
    return {run.inputs.dataset_inputs[0].dataset.digest for run in runs}, {
        run.data.tags["lockstep.run_key"] for run in runs
    }


def test_a_sweep_trains_on_the_data_of_its_start_and_says_so(sweep, uri, tmp_path, monkeypatch):
    before = sources.load(sweep.data).description.digest
    with monkeypatch.context() as patch:
        rewriting(patch, tmp_path)
        runs = sweep(0, 1)
    assert {run.data_digest for run in runs} == {before}
    assert digests(uri) == ({before}, {run.run_key for run in runs})
    now = sources.load(sweep.data).description.digest
    assert now != before
    again = sweep(0, 1)
    assert statuses(again) == [("FINISHED", False)] * 2
    assert {run.data_digest for run in again} == {now}
    # The first sweep's model was logged, though its file was gone by then.
    assert len(mlflow.MlflowClient(uri).search_logged_models(["1"])) == 2


def test_what_a_kill_left_is_uploaded_with_the_data_of_its_training(sweep, uri, tmp_path, monkeypatch):
    before = sources.load(sweep.data).description.digest
    with monkeypatch.context() as patch:
        rewriting(patch, tmp_path, interrupt=True)
        patch.setattr(session, "CLOSING_SECONDS", 0.0)
        patch.setattr(mlflow.MlflowClient, "create_run", lambda *_, **__: 1 / 0)
        with pytest.raises(KeyboardInterrupt):
            sweep(0)
    assert leftovers.deliver(unfinished()) == []
    assert digests(uri)[0] == {before}
    assert digests(uri)[1].isdisjoint({run.run_key for run in sweep(0)})
