"""Opening an MLflow store: checks that it answers, and creates a new SQLite store atomically."""

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
"""The longest wait for a tracking server to accept a connection. MLflow itself retries for minutes."""

LOCK_SECONDS = 120
"""The longest wait for another process, which locks a store for some seconds while it makes the schema."""


def open_store(uri: str) -> mlflow.MlflowClient:
    """Return a client of a store that has answered.

    Raises:
        MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError: if it does not.
    """
    # On a store's first use, alembic logs every migration of the schema.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # we report its errors, without traces
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # URLs hold the password of a server's URI
    # The uploader has its own retries.
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
    # MLflow's migrations fail if two processes open an empty store at once.
    with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
        connection = sqlite3.connect(path, timeout=20)
        try:
            connection.execute("BEGIN IMMEDIATE")  # fails within 20 s where MLflow would retry for minutes
        finally:
            connection.close()
        if not path.stat().st_size:
            _make(path)
        return _answering(uri)


def _make(path: Path) -> None:
    """Make an SQLite store in a temporary file, then rename it.

    MLflow refuses to open a store once a kill has cut its migrations short, which take a second.
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
    """Return the file of an SQLite store.

    Raises:
        ValueError: if the store is in memory.
    """
    database = make_url(uri).database
    if not database or database == ":memory:":
        raise ValueError("an in-memory SQLite store would be lost with the process; name a file")
    return Path(database).absolute()
