import os
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from filelock import FileLock

from lockstep.config.errors import Refused
from lockstep.tracking import opening
from lockstep.tracking.store import Store


def test_a_store_whose_making_was_cut_short_is_made_anew(tmp_path):
    # As a kill in the midst of it leaves them.
    for name in ("mlflow.db", "mlflow.db.part", "mlflow.db.part-journal"):
        (tmp_path / name).write_bytes(b"" if name == "mlflow.db" else b"half a store")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    assert not store.has_runs("anything")
    assert {path.name for path in tmp_path.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.lock"}


def test_a_locked_store_is_refused(tmp_path, monkeypatch):
    # Found by ourselves at once: MLflow would retry for minutes.
    monkeypatch.setattr(opening, "_answering", lambda uri: pytest.fail("MLflow was asked"))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0.1))
    holder = connect(tmp_path / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(Refused, match="database is locked"):
            Store(f"sqlite:///{tmp_path}/mlflow.db")
    finally:
        holder.close()


def test_another_process_that_opens_the_store_is_waited_for_and_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(opening, "SAY_SECONDS", 0.1)
    with FileLock(tmp_path / "mlflow.db.lock", is_singleton=False):
        opened = ThreadPoolExecutor().submit(Store, f"sqlite:///{tmp_path}/mlflow.db")
        while "waiting for another process" not in caplog.text:
            time.sleep(0.01)
        assert not opened.done()
    assert opened.result().uri == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:////proc/x.db", "unable to open database file"),
        ("sqlite:////proc/folder/x.db", "No such file or directory"),
        ("sqlite:///{folder}", "{folder} is a folder; name a file in it"),
        ("sqlite:///{folder}/notes.txt/mlflow.db", "File exists: '{folder}/notes.txt'"),
        ("sqlite:///{folder}/notes.txt", "file is not a database"),
        ("sqlitee:///{folder}/x.db", "Invalid database engine: 'sqlitee'"),
        ("postgresql://127.0.0.1:9/runs", "127.0.0.1:9: [Errno 111] Connection refused"),
        ("mysql+pymysql://127.0.0.1:9/runs", "127.0.0.1:9: [Errno 111] Connection refused"),
        ("mssql://nowhere.invalid/runs", "nowhere.invalid:1433: [Errno -2] Name or service not known"),
        ("oracle://127.0.0.1:9/runs", "unsupported URI"),
        ("{folder}/notes.txt", "The filesystem tracking backend"),
    ],
)
def test_a_store_that_cannot_be_is_refused_at_once_and_nothing_is_made(tmp_path, monkeypatch, uri, said):
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be one" * 100)
    monkeypatch.setattr(opening, "create_engine", lambda url, poolclass: None)  # its driver is not installed
    started = time.monotonic()
    with pytest.raises(Refused) as caught:
        Store(uri.format(folder=tmp_path))
    assert said.format(folder=tmp_path) in str(caught.value)
    assert time.monotonic() - started < 10  # MLflow would retry for minutes
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_the_driver_that_a_database_needs_is_named():
    with pytest.raises(Refused, match="No module named 'psycopg2'"):
        Store("postgresql+psycopg2://127.0.0.1:9/runs")


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("DROP TABLE metrics", "metrics"),
        ("DROP TABLE runs", "runs"),
        ("CREATE TABLE mine (x)", "experiments, latest_metrics, metrics, params, runs, tags"),
    ],
)
def test_a_database_without_mlflows_tables_is_refused_and_left_alone(tmp_path, empty_store, statement, lost):
    path = tmp_path / "mlflow.db"
    if statement.startswith("DROP"):
        shutil.copy(empty_store, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    before = path.read_bytes()
    with pytest.raises(Refused, match=f"it lacks MLflow's tables {lost}: it is another program's"):
        Store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_store_that_was_deleted_or_replaced_is_not_written_to(tmp_path, empty_store):
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_store, path)
    opening.open_store(f"sqlite:///{path}")
    path.unlink()
    with pytest.raises(ValueError, match=r"deleted or replaced .* start Python again"):
        opening.open_store(f"sqlite:///{path}")
    assert not path.exists()
    shutil.copy(empty_store, tmp_path / "other.db")
    (tmp_path / "other.db").rename(path)
    with pytest.raises(ValueError, match="deleted or replaced"):
        opening.open_store(f"sqlite:///{path}")
