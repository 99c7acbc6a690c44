"""Runs recorded as a whole: as MLflow's client would record them, and all of a group or none."""

import json
import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from helpers.events import epoch
from helpers.faults import contents
from helpers.records import config, described, trained

from lockstep.recovery.description import Description
from lockstep.recovery.journal import Ended
from lockstep.recovery.run_folder import RunFolder, unfinished
from lockstep.results.history import Evaluation
from lockstep.tracking import _mlflow_compat, whole_runs
from lockstep.tracking.pending import upload_pending
from lockstep.tracking.store import Store
from lockstep.tracking.tags import REASON, TOKEN, conclusion
from lockstep.tracking.uploader import Uploader

HISTORY = trained(130, [Evaluation(64, "test", math.nan, 0.25), Evaluation(130, "test", math.inf, 0.5)])
TABLES = ("tags", "params", "metrics", "latest_metrics")


@pytest.fixture
def store(uri):
    return Store(uri)


def recorded(store, n, as_whole=True, status="FINISHED"):
    """Record the same run n times below a parent; return the tokens."""
    tokens = [f"{number:032x}" for number in range(n)]
    parent = RunFolder(unfinished() / "parent")
    parent.create(Description("sweep", "a sweep", [], store.address, "tiny", sweep_key="key"))
    uploader = Uploader(store)
    of_parent = uploader.add(parent, is_new=True)
    uploader.update(of_parent)
    for token in tokens:
        folder = RunFolder(unfinished() / f"run-{token}")
        description = described(store, config(), f"run {token[-1]}", ["seed=0"], token)
        description.parent = "parent"
        folder.create(description)
        (folder.artifacts / "model").mkdir(parents=True)
        (folder.artifacts / "config.yaml").write_text("seed: 0\n")
        (folder.artifacts / "model" / "state_dict.pt").write_bytes(bytes(range(256)))
        upload = uploader.add(folder, is_new=True)
        upload.may_be_whole = as_whole
        uploader.update(upload, HISTORY, status, {REASON: "a reason"}, {"separation/input": math.nan})
    uploader.update(of_parent, status="FINISHED")
    with uploader:
        assert uploader.wait() == []
    assert [path.name for path in unfinished().iterdir() if path.is_dir()] == []
    return tokens


def rows(store, tokens):
    """Each run's rows, without its id and times."""
    found = []
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as connection:
        connection.row_factory = sqlite3.Row
        for token in tokens:
            [(run_id,)] = connection.execute(
                "SELECT run_uuid FROM tags WHERE key = ? AND value = ?", (TOKEN, token)
            ).fetchall()
            [run] = map(dict, connection.execute("SELECT * FROM runs WHERE run_uuid = ?", (run_id,)))
            folder = run.pop("artifact_uri")
            assert folder.endswith(f"/{run.pop('run_uuid')}/artifacts")
            assert 0 < run.pop("start_time") <= run.pop("end_time")
            of_run = {"run": run}
            for table in TABLES:
                all_rows = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (run_id,))
                wanted = [{k: v for k, v in dict(row).items() if k != "run_uuid"} for row in all_rows]
                of_run[table] = sorted(
                    (row for row in wanted if row["key"] not in (TOKEN, "mlflow.parentRunId")), key=str
                )
            inputs = connection.execute(
                "SELECT i.source_type, i.destination_type, i.step, d.name, d.digest, d.dataset_source_type,"
                " d.dataset_source, d.dataset_schema, d.dataset_profile, d.experiment_id, t.name AS n, value"
                " FROM inputs i JOIN datasets d ON i.source_id = d.dataset_uuid"
                " JOIN input_tags t USING (input_uuid) WHERE destination_id = ?",
                (run_id,),
            )
            of_run["inputs"] = list(map(dict, inputs))
            found.append(of_run)
    return found


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_a_whole_run_is_what_the_client_records(store, tmp_path, empty_store, monkeypatch, status):
    used = []
    monkeypatch.setattr(whole_runs._mlflow_compat, "insert_runs", lambda *a: used.append(a) or insert(*a))
    tokens = recorded(store, 2, status=status)
    assert [len(runs) for _, runs, _ in used] == [2]
    shutil.copy(empty_store, tmp_path / "client.db")
    other = Store(f"sqlite:///{tmp_path}/client.db")
    recorded(other, 2, as_whole=False, status=status)
    assert len(used) == 1
    ours = rows(store, tokens)
    assert len(ours[0]["metrics"]) == 13
    assert ours == rows(other, tokens)
    # And as it is read: artifacts, parents, the run's own data set.
    held = [contents(each.uri, "tiny") for each in (store, other)]
    assert [held[0][f"run {n}"]["artifacts"].keys() for n in (0, 1)] == [
        {"config.yaml", "model/state_dict.pt"}
    ] * 2
    assert json.dumps(held[0], sort_keys=True) == json.dumps(held[1], sort_keys=True)  # NaN is equal to NaN


insert = _mlflow_compat.insert_runs


def test_a_run_that_the_store_has_is_not_inserted_again(store):
    """A kill came between the transaction and the removal of the folder."""
    [token, _] = recorded(store, 2)
    run_id = store.find("tiny", token)
    assert recorded(store, 3)[0] == token
    assert store.find("tiny", token) == run_id
    assert len(rows(store, [f"{number:032x}" for number in range(3)])) == 3


def test_a_store_of_another_schema_gets_runs_by_the_client(store, monkeypatch):
    monkeypatch.setattr(_mlflow_compat, "SCHEMAS", "0123456789ab")
    calls = []
    create = mlflow.MlflowClient.create_run
    monkeypatch.setattr(mlflow.MlflowClient, "create_run", lambda *a, **k: calls.append(a) or create(*a, **k))
    assert len(rows(store, recorded(store, 2))) == 2
    assert len(calls) == 3


def test_a_group_is_recorded_or_nothing_is(store, monkeypatch):
    """A locked or full store takes none; then all are tried again."""
    left = [1]
    made = _mlflow_compat._insert

    def fails_late(connection, table, of_table):
        made(connection, table, of_table)
        if table == "metrics" and left:
            left.pop()
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(_mlflow_compat, "_insert", fails_late)
    monkeypatch.setattr("lockstep.tracking.uploader.RETRY_SECONDS", 0.1)
    tokens = recorded(store, 3)
    assert left == []
    assert len(rows(store, tokens)) == 3


def test_a_thousand_runs_take_few_transactions(store, monkeypatch):
    asked, monkeypatched = [], whole_runs._mlflow_compat
    monkeypatch.setattr(monkeypatched, "insert_runs", lambda *a: asked.append(len(a[1])) or insert(*a))
    monkeypatch.setattr(whole_runs, "MOST", 4)
    monkeypatch.setattr("lockstep.tracking.uploader.MOST", 4)
    recorded(store, 10)
    assert asked == [4, 4, 2]


class _Kill(BaseException):
    pass


@pytest.mark.parametrize("moment", ["copied", "inserted", "committed", "half removed"])
def test_a_kill_at_any_moment_loses_and_doubles_nothing(store, monkeypatch, moment):
    calls = {"insert_runs": 0, "metrics": 0, "remove": 0}
    made, remove = _mlflow_compat._insert, RunFolder.remove

    def killed(what, at):
        calls[what] += 1
        if calls[what] == at:
            raise _Kill

    def inserts(connection, table, of_table):
        made(connection, table, of_table)
        if table == "metrics":
            killed("metrics", 1)

    def removes(folder):
        killed("remove", 2 if moment == "half removed" else 1)
        remove(folder)

    uploads = []
    uploader = Uploader(store)
    for number in range(3):
        folder = RunFolder(unfinished() / f"run-{number}")
        folder.create(described(store, config(), f"run {number}", ["seed=0"], f"{number:032x}"))
        folder.journal.append(epoch())
        folder.artifacts.mkdir()
        (folder.artifacts / "config.yaml").write_text("seed: 0\n")
        ended = Ended(artifacts=folder.artifact_seals())
        folder.journal.append(ended)
        history, _ = folder.history()
        uploads.append(uploader.add(folder, is_new=True))
        uploader.update(uploads[-1], history, *conclusion(history, ended))
    with monkeypatch.context() as patch:
        if moment == "copied":
            patch.setattr(_mlflow_compat, "insert_runs", lambda *_: killed("insert_runs", 1))
        elif moment == "inserted":
            patch.setattr(_mlflow_compat, "_insert", inserts)
        else:
            patch.setattr(RunFolder, "remove", removes)
        with pytest.raises(_Kill):
            whole_runs.record_all(store, uploads, lambda _: None)
    in_store = {"copied": 0, "inserted": 0}.get(moment, 3)
    assert len(store.client.search_runs([store.experiment_id("tiny")])) == in_store
    assert upload_pending(unfinished()) == []
    held = contents(store.uri, "tiny")
    assert sorted(held) == ["run 0", "run 1", "run 2"]
    assert {run["status"] for run in held.values()} == {"FINISHED"}
    assert [held["run 0"] == {**held[name], "parent": None} for name in held] == [True] * 3
    assert held["run 0"]["artifacts"].keys() == {"config.yaml"}
    assert [path.name for path in unfinished().iterdir() if path.is_dir()] == []
    artifacts = Path(store.artifact_location("tiny").removeprefix("file://"))
    assert len([path for path in artifacts.iterdir() if path.is_dir()]) == 3  # none without a run
