"""Opening an MLflow store: checks that it answers, and creates a new SQLite store atomically."""

import logging
import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import requests
from filelock import FileLock, Timeout
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from lockstep.tracking._mlflow_compat import missing_tables
from lockstep.tracking.address import check_server, check_user_info, sqlite_path, sqlite_uri, with_options
from lockstep.tracking.errors import http_status

log = logging.getLogger("lockstep")

CONNECT_SECONDS = 10
"""The longest wait for a tracking server to say its version. MLflow itself retries for minutes."""

OLDEST_SERVER = 3
"""The oldest major version of a server that can be used: MLflow 2 has no logged models."""

NEEDS = f"Lockstep needs a server with MLflow {OLDEST_SERVER} or later"

LOCK_SECONDS = 120
"""The longest wait for another process, which locks a store for some seconds while it makes the schema."""

SAY_SECONDS = 2.0
"""How long it is waited for without a message."""

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
"""The databases' default ports."""

LOCKS = {
    "postgresql": f"SET lock_timeout = '{LOCK_SECONDS}s'; SELECT pg_advisory_lock(hashtext('lockstep'))",
    "mysql": f"SELECT GET_LOCK('lockstep', {LOCK_SECONDS})",
}
"""How a connection to a database locks a name, until it is closed."""

_files: dict[Path, tuple[int, int] | None] = {}
"""The SQLite stores that this process has opened, see `_identity`: MLflow keeps its connections to them."""


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
    # Lockstep has its own retries. MLflow would start a run twice if the first answer is lost.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    check_user_info(uri)
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme in ("http", "https"):
        check_server(uri)
        return _server(uri)
    if scheme == "sqlite":
        return _sqlite(uri)
    if scheme in PORTS:
        return _database(uri)
    return _answering(uri)  # Databricks, or a plugin of MLflow; others are refused at once


def _sqlite(uri: str) -> mlflow.MlflowClient:
    """Return a client of an SQLite store, made if needed. What can't be opened or written fails at once."""
    path = sqlite_path(uri)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it, such as {path / 'mlflow.db'}")
    if _files.get(path, _identity(path)) != _identity(path):
        raise ValueError(
            "it was deleted or replaced since this process opened it, and MLflow would still write to the old"
            " file; start Python again (in a notebook, restart the kernel)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=20)
    try:
        connection.execute("BEGIN IMMEDIATE")  # fails within 20 s where MLflow would retry for minutes
        if lost := missing_tables(connection):
            raise ValueError(
                f"it lacks MLflow's tables {', '.join(lost)}: it is another program's database, or damaged"
            )
    finally:
        connection.close()
    # MLflow's migrations fail if two processes open an empty store at once.
    with _locked(Path(f"{path}.lock")):
        if not path.stat().st_size:
            _make(path)
        client = _answering(with_options(uri))
        _files[path] = _identity(path)
        return client


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one that takes its place later; None without one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, and say so if another process holds it for long."""
    lock = FileLock(path, timeout=LOCK_SECONDS)
    try:
        lock.acquire(timeout=SAY_SECONDS)
    except Timeout:
        log.warning("waiting for another process, which is making or opening this store: it holds %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _database(uri: str) -> mlflow.MlflowClient:
    """Return a client of a database, once it was reached: MLflow's client would retry for minutes."""
    url = make_url(uri)
    engine = create_engine(url, poolclass=NullPool)  # fails without the database's driver
    if url.host is not None:
        port = url.port or PORTS[url.get_backend_name()]
        try:
            socket.create_connection((url.host, port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"{url.host}:{port}: {error}") from error
    with engine.connect() as connection:
        # MLflow's migrations fail if two processes open an empty store at once.
        if lock := LOCKS.get(url.get_backend_name()):
            connection.execute(text(lock))  # released with the connection
        return _answering(uri)


def _server(uri: str) -> mlflow.MlflowClient:
    """Return a client of a tracking server, if the server is new enough."""
    version = _version(uri)
    if version is not None and int(version.partition(".")[0]) < OLDEST_SERVER:
        raise ValueError(f"the server has MLflow {version}; {NEEDS}")
    client = _answering(uri)
    if version is None:
        try:
            client.search_logged_models(["0"], max_results=1)
        except MlflowException as error:
            if http_status(error) == 404:
                raise ValueError(f"the server has no logged models; {NEEDS}") from error
            raise
    return client


def _version(uri: str) -> str | None:
    """Return the version of a server, None if it does not say it (a gateway may answer in its place).

    The way is that of MLflow's client: requests, and so the same proxies and certificates.
    """
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    verify = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or not insecure
    try:
        answer = requests.get(f"{uri.rstrip('/')}/version", timeout=CONNECT_SECONDS, verify=verify)
    except requests.exceptions.SSLError:  # a client's certificate may be needed
        return None
    except requests.exceptions.ConnectionError as error:
        cause = getattr(next(iter(error.args), None), "reason", error)
        raise ConnectionError(str(cause).rpartition(": ")[2] or repr(cause)) from error
    found = re.fullmatch(r"\d+\.\d+\S*", answer.text.strip())
    return found[0] if answer.ok and found else None


def _make(path: Path) -> None:
    """Make an SQLite store in a temporary file, then rename it.

    MLflow refuses to open a store once a kill has cut its migrations short, which take a second.
    """
    part = path.with_name(f"{path.name}.part")
    for left in (part, Path(f"{part}-journal")):
        left.unlink(missing_ok=True)
    _answering(sqlite_uri(part))
    part.rename(path)  # MLflow's idle connection to it holds no lock


def _answering(uri: str) -> mlflow.MlflowClient:
    client = mlflow.MlflowClient(uri)
    client.search_experiments(view_type=ViewType.ALL, max_results=1)
    return client
