"""The way to the store while it is away, and after the process that trained is gone."""

import json
import logging
import os
import re
import sqlite3
import threading
import time

import mlflow
import pytest
from helpers import forked
from helpers.configs import LOGREG, job
from helpers.events import epoch
from helpers.faults import contents
from helpers.records import carried_out, config, described, recorded, statuses

from lockstep.config.launcher_config import LauncherConfig
from lockstep.recovery import durable
from lockstep.recovery.run_folder import RunFolder, unfinished
from lockstep.sweep.session import NotUploaded
from lockstep.tracking import uploader as uploader_module
from lockstep.tracking.pending import upload_pending
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.tracking.tags import TOKEN
from lockstep.training import artifacts


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(uploader_module, "RETRY_SECONDS", 0.1)


@pytest.fixture
def one_by_one(monkeypatch):
    """Runs are uploaded by MLflow's client, as to other stores than a local SQLite file."""
    monkeypatch.setattr(uploader_module, "is_whole", lambda upload: False)


def jobs_of(uri, n=2):
    return [job(uri, f"seed={s}", model=LOGREG, seed=s) for s in range(n)]


def undisturbed(tmp_path, n=2):
    uri = f"sqlite:///{tmp_path}/undisturbed.db"
    carried_out(jobs_of(uri, n), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    return contents(uri, "digits")


WRITES = ("create_run", "log_batch", "log_artifact", "set_terminated")


def go_away(monkeypatch, n_calls, patience=30.0):
    """Let the store not answer for so many calls, nor be waited for longer than that."""
    left = [n_calls]

    def away(call):
        def wrapper(*args, **kwargs):
            if left[0]:
                left[0] -= 1
                raise ConnectionError("nobody is there")
            return call(*args, **kwargs)

        return wrapper

    for name in WRITES:
        monkeypatch.setattr(mlflow.MlflowClient, name, away(getattr(mlflow.MlflowClient, name)))
    monkeypatch.setattr(uploader_module, "PATIENCE_SECONDS", patience)


def test_a_store_that_comes_back_gets_all(uri, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        go_away(patch, 7)
        assert (
            statuses(carried_out(jobs_of(uri), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1)))
            == [("FINISHED", False)] * 2
        )
    assert contents(uri, "digits") == undisturbed(tmp_path)


def test_a_store_that_does_not_come_back_gets_all_from_deliver(uri, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        go_away(patch, 10**9, patience=0.5)
        with pytest.raises(NotUploaded) as caught:
            carried_out(jobs_of(uri), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
        assert len(upload_pending(unfinished())) == 3  # two runs and their parent
    message = str(caught.value)
    assert "the store says: nobody is there" in message
    assert f"-m lockstep deliver {unfinished()}" in message
    assert mlflow.MlflowClient(uri).search_runs(["1"]) == []
    want = undisturbed(tmp_path)
    for _ in range(2):
        assert upload_pending(unfinished()) == []
        assert contents(uri, "digits") == want


def test_deliver_is_a_command(uri, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        go_away(patch, 10**9, patience=0.2)
        with pytest.raises(NotUploaded):
            carried_out(jobs_of(uri), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    folders = [path for path in unfinished().iterdir() if path.is_dir()]
    assert len(folders) == 3

    def run(folder):
        done = forked.run(["-m", "lockstep", "deliver", str(folder)], tmp_path, dict(os.environ))
        return done.returncode, done.stdout, done.stderr

    code, out, err = run(unfinished())
    assert (code, out) == (1, "")
    assert err.count(": a command is at work on it\n") == 3  # this process has not let go
    for folder in folders:
        uploader_module.RunFolder(folder).release()
    for _ in range(2):
        assert run(unfinished()) == (0, "all is in the store\n", "")
    assert contents(uri, "digits") == undisturbed(tmp_path)
    code, out, err = run(tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert "nowhere: not a folder" in err


@pytest.mark.usefixtures("one_by_one")
def test_a_slow_store_is_waited_for_as_long_as_it_advances(uri, monkeypatch, caplog):
    def slow(call):
        def wrapper(*args, **kwargs):
            time.sleep(0.2)
            return call(*args, **kwargs)

        return wrapper

    caplog.set_level(logging.INFO, "lockstep")
    with monkeypatch.context() as patch:
        for name in WRITES:
            patch.setattr(mlflow.MlflowClient, name, slow(getattr(mlflow.MlflowClient, name)))
        patch.setattr(uploader_module, "PATIENCE_SECONDS", 0.5)
        patch.setattr(uploader_module, "SAY_SECONDS", 0.4)
        results = carried_out(jobs_of(uri, 4), ["seed=range(0,4)"], launcher=LauncherConfig(n_jobs=1))
    assert statuses(results) == [("FINISHED", False)] * 4
    assert {status for status, _ in recorded(uri).values()} == {"FINISHED"}
    said = [message for message in caplog.messages if message.startswith("waiting for the store")]
    assert re.match(r"waiting for the store, which still lacks (\S+, )*seed=\d", said[0])
    assert len(said) > 3


def test_a_locked_store_is_waited_for(uri, tmp_path):
    carried_out(jobs_of(uri, 1), ["seed=0"], launcher=LauncherConfig(n_jobs=1))  # makes the store
    lock = sqlite3.connect(tmp_path / "mlflow.db", check_same_thread=False)
    lock.execute("BEGIN IMMEDIATE")
    unlock = threading.Timer(8.0, lock.rollback)
    unlock.start()
    started = time.monotonic()
    results = carried_out(jobs_of(uri), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert time.monotonic() - started > 7
    unlock.join()
    lock.close()
    assert statuses(results) == [("FINISHED", True), ("FINISHED", False)]


@pytest.mark.usefixtures("one_by_one")
def test_a_run_deleted_meanwhile_is_hopeless_the_others_arrive_and_it_is_started_anew(uri, monkeypatch):
    log_batch = mlflow.MlflowClient.log_batch

    def deletes(client, run_id, *args, **kwargs):
        if client.get_run(run_id).info.run_name == "seed=0":
            client.delete_run(run_id)
        return log_batch(client, run_id, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", deletes)
        with pytest.raises(NotUploaded):
            carried_out(jobs_of(uri), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert recorded(uri) == {"seed, 2 runs": ("FINISHED", None), "seed=1": ("FINISHED", None)}
    assert upload_pending(unfinished()) == []
    assert recorded(uri)["seed=0"] == ("FINISHED", None)


@pytest.mark.usefixtures("one_by_one")
def test_a_runs_token_is_on_disk_before_the_store_hears_of_it(uri, monkeypatch):
    done, replace, create_run = [], durable.replace, mlflow.MlflowClient.create_run

    def noted(path, content, is_synced=True):
        if is_synced:
            done.append(json.loads(content)["token"])
        replace(path, content, is_synced)

    monkeypatch.setattr(durable, "replace", noted)
    monkeypatch.setattr(
        mlflow.MlflowClient,
        "create_run",
        lambda *args, **given: done.append(f"started {given['tags'][TOKEN]}") or create_run(*args, **given),
    )
    store = Store(uri)
    folder = RunFolder(unfinished() / "abc")
    folder.create(described(store, config(), "a run", [], "0" * 32))
    uploader = uploader_module.Uploader(store)
    uploader.update(uploader.add(folder, is_new=True), status="FAILED")
    with uploader:
        assert uploader.wait() == []
    assert done[:2] == ["0" * 32, "started " + "0" * 32]


def test_what_is_closed_is_not_touched_again(uri, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(artifacts, "write_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            carried_out(jobs_of(uri), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    states = recorded(uri)
    assert set(states.values()) == {("KILLED", None)}
    monkeypatch.setattr(mlflow.MlflowClient, "set_terminated", lambda *_: pytest.fail("was touched"))
    assert upload_pending(unfinished()) == []
    assert recorded(uri) == states


def test_a_run_that_was_adopted_and_is_then_asked_for_is_recorded_to_its_end(uri, monkeypatch):
    """As a search's confirmation run, which is added after the folders of a killed command are adopted."""
    store, folder = Store(uri), RunFolder(unfinished() / "a-run")
    folder.claim()
    folder.create(described(store, config()))
    folder.journal.append(epoch())
    is_ending, may_go_on, end = threading.Event(), threading.Event(), Recorded.end

    def waits(recorded, status, tags):
        is_ending.set()
        assert may_go_on.wait(60)
        end(recorded, status, tags)

    monkeypatch.setattr(Recorded, "end", waits)
    with uploader_module.Uploader(store) as uploader:
        uploader.adopt(folder)
        assert is_ending.wait(60)  # as KILLED
        asked_for = uploader.add(folder, is_new=False)
        may_go_on.set()
        uploader.update(asked_for, folder.history()[0], "FINISHED")
        assert uploader.wait() == []
    [run] = store.client.search_runs([store.experiment_id("tiny")])
    assert run.info.status == "FINISHED"
    assert not folder.path.exists()


def test_a_stores_address_is_the_same_from_everywhere(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Store("sqlite:///mlflow.db").address == Store(uri).address == uri
