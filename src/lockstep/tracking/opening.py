"""Opening an MLflow store: that it answers, and how a new SQLite one is made in one piece."""

import logging
import os
import socket
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from filelock import FileLock
from mlflow.entities import ViewType
from sqlalchemy.engine import make_url

CONNECT_SECONDS = 10
"""How long a tracking server may take to accept a connection. MLflow itself retries for minutes."""

LOCK_SECONDS = 120
"""How long another process may hold a store's lock; it does so while it makes the schema, for seconds."""


def open_store(uri: str) -> mlflow.MlflowClient:
    """A client of a store that has answered.

    Raises:
        MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError: if it does not.
    """
    # Its first use of a store announces every migration of the schema.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # its errors are reported, without traces
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # they hold the password of a server's URI
    # The uploader waits for a server that is gone.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        address = urlsplit(uri)
        port = address.port or (443 if scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=CONNECT_SECONDS).close()
        return _answering(uri)
    if not scheme.startswith("sqlite"):
        return _answering(uri)
    path = sqlite_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    # MLflow's migrations don't stand two processes that open an empty store at once.
    with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
        connection = sqlite3.connect(path, timeout=20)
        try:
            connection.execute("BEGIN IMMEDIATE")  # fails at once where MLflow would retry for minutes
        finally:
            connection.close()
        if not path.stat().st_size:
            _make(path)
        return _answering(uri)


def _make(path: Path) -> None:
    """Make an SQLite store aside, then put it in place.

    A kill in the midst of MLflow's migrations, which take a second, leaves what MLflow refuses for ever.
    """
    part = path.with_name(f"{path.name}.part")
    for left in (part, Path(f"{part}-journal")):
        left.unlink(missing_ok=True)
    _answering(f"sqlite:///{part}")
    part.rename(path)  # MLflow's idle connection to it holds no lock


def _answering(uri: str) -> mlflow.MlflowClient:
    client = mlflow.MlflowClient(uri)
    client.search_experiments(view_type=ViewType.ALL, max_results=1)
    return client


def sqlite_path(uri: str) -> Path:
    """The file of an SQLite store.

    Raises:
        ValueError: of one in memory.
    """
    database = make_url(uri).database
    if not database or database == ":memory:":
        raise ValueError("an in-memory SQLite store would be lost with the process; name a file")
    return Path(database).absolute()
