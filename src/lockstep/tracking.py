"""Everything MLflow: opening a store, starting runs with explicit ids, recording and ending them."""

import getpass
import json
import logging
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import numpy as np
from filelock import FileLock
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from lockstep import __version__
from lockstep.config import Refused, RunConfig, without_password
from lockstep.data import Dataset
from lockstep.train import History, Status

CONNECT_SECONDS = 10
"""How long a tracking server may take to accept a connection. MLflow itself retries for minutes."""

LOCK_SECONDS = 120
"""How long another process may hold a store's lock; it does so while it makes the schema, for seconds."""


class Store:
    """An MLflow tracking store that has answered.

    Raises:
        Refused: if it can't be reached, opened or written.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self.client = _open(uri)
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError) as error:
            reason = without_password(str(error).strip().splitlines()[0] if str(error) else repr(error))
            raise Refused(
                [
                    f"tracking.uri={without_password(uri)}: this store can't be used: {reason}\n"
                    "  allowed: an SQLite file (sqlite:///folder/mlflow.db), a database URI,"
                    " or the http(s) address of a running MLflow server"
                ]
            ) from error

    def experiment_id(self, name: str) -> str:
        """The experiment of that name, made if it isn't there.

        Raises:
            Refused: if it was deleted or can't be made.
        """
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                # The UI opens an experiment of this kind at its training runs, not in its GenAI view.
                kind = {"mlflow.experimentKind": "custom_model_development"}
                return self.client.create_experiment(name, _artifact_location(self.uri), kind)
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise Refused([f"tracking.experiment={name}: {error.message}"]) from error
            experiment = self.client.get_experiment_by_name(name)  # another process was quicker
        assert experiment is not None
        if experiment.lifecycle_stage == "deleted":
            raise Refused(
                [
                    f"tracking.experiment={name}: was deleted in this store; restore it with"
                    f" `mlflow experiments restore -x {experiment.experiment_id}` or give another name"
                ]
            )
        return experiment.experiment_id

    def ui(self, experiment_id: str) -> str:
        """How to see an experiment of this store in MLflow's UI."""
        runs = f"#/experiments/{experiment_id}/runs"
        if self.uri.startswith("http"):
            return f"open {without_password(self.uri).rstrip('/')}/{runs}"
        root = Path(os.environ.get("LOCKSTEP_ROOT", "."))
        if self.uri == f"sqlite:///{root / 'outputs' / 'mlflow.db'}":
            command = "make ui" if root == Path.cwd() else f"make -C {root} ui"
        else:
            command = f"mlflow ui --backend-store-uri {without_password(self.uri)}"
        return f"{command}, then open http://127.0.0.1:5000/{runs}"

    def start_sweep(self, experiment: str, name: str, overrides: Sequence[str]) -> "Recorded":
        """The parent run of a sweep."""
        tags = {"lockstep.kind": "sweep", "lockstep.overrides": _overrides_tag(overrides)}
        return Recorded(self.client, self._start(experiment, name, tags))

    def start_run(
        self, config: RunConfig, dataset: Dataset, name: str, overrides: Sequence[str], parent: str | None
    ) -> "RecordedRun":
        """The MLflow run of one training run: its tags, params and data set."""
        tags = {
            "lockstep.kind": "run",
            "lockstep.run_key": config.run_key(dataset.digest),
            "lockstep.overrides": _overrides_tag(overrides),
        }
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = self._start(config.tracking.experiment, name, tags)
        recorded = RecordedRun(self.client, run, config.trainer.log_every)
        recorded.describe(config, dataset)
        return recorded

    def _start(self, experiment: str, name: str, tags: Mapping[str, str]) -> Run:
        everywhere = {
            "lockstep.version": __version__,
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": "run.py",
            "mlflow.source.type": "LOCAL",
        }
        if commit := _git_commit():
            everywhere["mlflow.source.git.commit"] = commit
        return self.client.create_run(
            self.experiment_id(experiment), tags={**everywhere, **tags}, run_name=name
        )


class Recorded:
    """An MLflow run that is RUNNING until `end`."""

    def __init__(self, client: mlflow.MlflowClient, run: Run) -> None:
        self.client = client
        self.run_id = run.info.run_id
        self.experiment_id = run.info.experiment_id

    def end(self, status: Status, reason: str = "") -> None:
        """Set the run's last status; a reason is kept as tag `lockstep.reason`."""
        if reason:
            self.client.set_tag(self.run_id, "lockstep.reason", reason)
        self.client.set_terminated(self.run_id, status)


class RecordedRun(Recorded):
    """A training run in the store. Metrics go in batches, their steps are training iterations done."""

    def __init__(self, client: mlflow.MlflowClient, run: Run, log_every: int) -> None:
        super().__init__(client, run)
        self._log_every = log_every
        self._params: list[Param] = []  # not known to be in the store
        self._metrics: list[Metric] = []  # likewise
        self._iterations = 0  # of the history, already made into metrics
        self._evaluations = 0  # likewise

    def describe(self, config: RunConfig, dataset: Dataset) -> None:
        """The data set with its digest; params, under the keys the user types, go with the first record."""
        self._params = [Param(key, _as_typed(value)) for key, value in config.params().items()]
        profile = {
            part: {"instances": len(y), "features": list(dataset.feature_shape), "classes": dataset.n_classes}
            for part, y in (("train", dataset.y_train), ("test", dataset.y_test))
        }
        logged = LoggedDataset(
            name=dataset.name,
            digest=dataset.digest,
            source_type="code",
            source=json.dumps({"source": dataset.source}),
            profile=json.dumps(profile),
        )
        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.run_id, [DatasetInput(logged, [context])])

    def record(self, history: History, last: bool = False) -> None:
        """Send what the history holds beyond what was sent: whole windows of `log_every` iterations.

        With `last`, also the window that the end of training cut short, and the run's summary. What a call
        that was interrupted, or failed, may not have sent goes again with the next one: a store keeps one
        point of those that are equal, timestamp included.
        """
        now = int(time.time() * 1000)

        def add(key: str, value: float, step: int) -> None:
            self._metrics.append(Metric(key, value, now, step))

        done = len(history.loss_T)
        while done - self._iterations >= self._log_every or (last and done > self._iterations):
            start, stop = self._iterations, min(self._iterations + self._log_every, done)
            add("train/loss", float(np.mean(history.loss_T[start:stop])), stop)
            add("train/accuracy", float(np.mean(history.accuracy_T[start:stop])), stop)
            self._iterations = stop
        for evaluation in history.evaluations[self._evaluations :]:
            add(f"{evaluation.split}/loss", evaluation.loss, evaluation.iteration)
            add(f"{evaluation.split}/accuracy", evaluation.accuracy, evaluation.iteration)
        self._evaluations = len(history.evaluations)
        if last:
            add("time/train_seconds", history.seconds, done)
            if tests := history.of("test"):
                add("test/accuracy_best", max(evaluation.accuracy for evaluation in tests), done)
        # The client cuts it to what a store takes.
        self.client.log_batch(self.run_id, metrics=self._metrics, params=self._params)
        self._metrics, self._params = [], []

    def artifacts(self, folder: Path) -> None:
        """Keep everything under `folder` as the run's artifacts."""
        self.client.log_artifacts(self.run_id, str(folder))


def _open(uri: str) -> mlflow.MlflowClient:
    # Its first use of a store announces every migration of the schema.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store").setLevel(logging.WARNING)
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # they hold the password of a server's URI
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        address = urlsplit(uri)
        port = address.port or (443 if scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=CONNECT_SECONDS).close()
        return _answering(uri)
    if not scheme.startswith("sqlite"):
        return _answering(uri)
    path = _sqlite_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    # MLflow's migrations don't stand two processes that open an empty store at once.
    with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
        connection = sqlite3.connect(path, timeout=20)
        try:
            connection.execute("BEGIN IMMEDIATE")  # fails at once where MLflow would retry for minutes
        finally:
            connection.close()
        return _answering(uri)


def _answering(uri: str) -> mlflow.MlflowClient:
    client = mlflow.MlflowClient(uri)
    client.search_experiments(view_type=ViewType.ALL, max_results=1)
    return client


def _sqlite_path(uri: str) -> Path:
    database = make_url(uri).database
    if not database or database == ":memory:":
        raise ValueError("an in-memory SQLite store would be lost with the process; name a file")
    return Path(database).absolute()


def _artifact_location(uri: str) -> str | None:
    """Beside an SQLite store's file; a server or another database decides for itself."""
    return (_sqlite_path(uri).parent / "artifacts").as_uri() if uri.startswith("sqlite") else None


def _overrides_tag(overrides: Iterable[str]) -> str:
    return " ".join(without_password(o) for o in overrides)


def _as_typed(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


@cache
def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
