import sqlite3

import pytest

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
