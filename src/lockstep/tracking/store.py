"""An MLflow store: its experiments, starting runs with explicit ids, finding them again."""

import getpass
import json
import os
import platform
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from urllib.parse import quote, urlencode

import joblib
from mlflow.entities import Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from sqlalchemy.exc import SQLAlchemyError

from lockstep._version import __version__
from lockstep.config.errors import Refused, without_password
from lockstep.config.schema import LogRegConfig, RunConfig
from lockstep.data.datasets import Dataset
from lockstep.tracking.opening import open_store, sqlite_path
from lockstep.tracking.run import Recorded, RecordedRun

TOKEN, REASON, PRUNED_AT = "lockstep.token", "lockstep.reason", "lockstep.pruned_at"
OVERRIDES, ENVIRONMENT = "lockstep.overrides", "lockstep.environment"
"""Tags. OVERRIDES are those that asked for it, ENVIRONMENT is JSON: what it was trained with."""

NOTE = "mlflow.note.content"

STORED_RUNS = "stored_runs.json"
"""The artifact of a sweep that names its runs that an earlier sweep had trained: they are that one's."""

DIVERGED = "diverged: "
"""How the reason of a run begins whose loss stopped being finite."""


class Store:
    """An MLflow tracking store that has answered.

    Attributes:
        uri: how it is opened.
        address: the same for whoever opens it from wherever: without a password, a file's path in full.

    Raises:
        Refused: if it can't be reached, opened or written.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.address = without_password(uri)
        self._experiment_ids: dict[str, str] = {}
        try:
            self.client = open_store(uri)
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError) as error:
            reason = without_password(str(error).strip().splitlines()[0] if str(error) else repr(error))
            raise Refused(
                [
                    f"tracking.uri={without_password(uri)}: this store can't be used: {reason}\n"
                    "  allowed: an SQLite file (sqlite:///folder/mlflow.db), a database URI,"
                    " or the http(s) address of a running MLflow server"
                ]
            ) from error
        if uri.startswith("sqlite"):
            self.address = f"sqlite:///{sqlite_path(uri)}"

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

    def _known_id(self, experiment: str) -> str:
        """Likewise, but asked once, not for each of a thousand runs."""
        if experiment not in self._experiment_ids:
            self._experiment_ids[experiment] = self.experiment_id(experiment)
        return self._experiment_ids[experiment]

    def ui(self, experiment_id: str) -> str:
        """How to see an experiment of this store in MLflow's UI."""
        runs = f"#/experiments/{experiment_id}/runs"
        if self.uri.startswith("http"):
            return f"open {self._ui_address}/{runs}"
        root = Path(os.environ.get("LOCKSTEP_ROOT", "."))
        if self.uri == f"sqlite:///{root / 'outputs' / 'mlflow.db'}":
            command = "make ui" if root == Path.cwd() else f"make -C {root} ui"
        else:
            command = f"mlflow ui --backend-store-uri {without_password(self.uri)}"
        return f"{command}, then open {self._ui_address}/{runs}"

    def run_link(self, experiment_id: str, run_id: str) -> str:
        """A run's address in MLflow's UI."""
        return f"{self._ui_address}/#/experiments/{experiment_id}/runs/{run_id}"

    def sweep_link(self, experiment_id: str, run_id: str, metric: str) -> str:
        """The address of a sweep's runs in MLflow's UI, the greatest of a metric first."""
        wanted = {
            "searchFilter": f"tags.mlflow.parentRunId = '{run_id}'",
            "orderByKey": f"metrics.`{metric}`",
            "orderByAsc": "false",
        }
        runs = f"#/experiments/{experiment_id}/runs"
        return f"{self._ui_address}/{runs}?{urlencode(wanted, quote_via=quote)}"

    @property
    def _ui_address(self) -> str:
        of_server = self.uri.startswith("http")
        return without_password(self.uri).rstrip("/") if of_server else "http://127.0.0.1:5000"

    def start_sweep(self, experiment: str, name: str, overrides: Sequence[str], token: str) -> "Recorded":
        """The parent run of a sweep; `token` is how `find` finds it."""
        tags = {"lockstep.kind": "sweep", OVERRIDES: _overrides_tag(overrides)}
        return Recorded(self.client, self._start(experiment, name, tags, token))

    def start_run(
        self,
        config: RunConfig,
        dataset: Dataset,
        name: str,
        overrides: Sequence[str],
        parent: str | None,
        token: str,
    ) -> "RecordedRun":
        """The MLflow run of one training run: its tags, params and data set; `token` as for `start_sweep`."""
        tags = {
            "lockstep.kind": "run",
            "lockstep.run_key": config.run_key(dataset.digest),
            OVERRIDES: _overrides_tag(overrides),
            NOTE: _note(config, dataset),
        }
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run_id = self._start(config.tracking.experiment, name, tags, token)
        return self._described(run_id, config, dataset)

    def describe_sweep(self, run_id: str, note: str, metrics: Mapping[str, float]) -> None:
        """What a sweep's runs came to: a description, as MLflow's UI shows it, and metrics of its own."""
        self.client.set_tag(run_id, NOTE, note)
        now = time.time_ns() // 1_000_000
        self.client.log_batch(run_id, [Metric(key, value, now, 0) for key, value in metrics.items()])

    def resume_sweep(self, run_id: str) -> "Recorded":
        """A parent run that was started before; it is RUNNING again."""
        self.client.update_run(run_id, "RUNNING")
        return Recorded(self.client, run_id)

    def resume_run(self, run_id: str, config: RunConfig, dataset: Dataset) -> "RecordedRun":
        """A run that was started before, whatever of it got lost meanwhile; it is RUNNING again."""
        self.client.update_run(run_id, "RUNNING")
        return self._described(run_id, config, dataset)

    def _described(self, run_id: str, config: RunConfig, dataset: Dataset) -> "RecordedRun":
        recorded = RecordedRun(self.client, run_id, config.trainer.log_every)
        recorded.describe(config, dataset)
        return recorded

    def find(self, experiment: str, token: str) -> str | None:
        """The id of the run that was started with `token`, if it was."""
        found = self.client.search_runs(
            [self._known_id(experiment)], f"tags.`{TOKEN}` = '{token}'", max_results=1
        )
        return found[0].info.run_id if found else None

    def is_there(self, run_id: str) -> bool:
        """Whether a run is neither deleted nor gone."""
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return False
            raise

    def result(self, experiment: str, run_key: str) -> Run | None:
        """The latest run with this key that need not be trained again: FINISHED, unless a search gave it up
        on the way, or diverged as it would."""
        found = self.client.search_runs(
            [self._known_id(experiment)],
            f"tags.`lockstep.run_key` = '{run_key}'",
            order_by=["attributes.start_time DESC"],
        )
        for run in found:
            diverged = run.data.tags.get(REASON, "").startswith(DIVERGED)
            finished = run.info.status == "FINISHED" and PRUNED_AT not in run.data.tags
            if finished or (run.info.status == "FAILED" and diverged):
                return run
        return None

    def runs_of_sweep(self, parent: Run) -> list[Run]:
        """A sweep's runs, in the order in which they were started; those that it found in the store last."""
        runs: list[Run] = []
        token: str | None = ""
        while token is not None:
            page = self.client.search_runs(
                [parent.info.experiment_id],
                f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'",
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token or None,
            )
            runs += page
            token = page.token or None
        listed = {entry.path for entry in self.client.list_artifacts(parent.info.run_id)}
        if STORED_RUNS in listed:
            with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
                path = self.client.download_artifacts(parent.info.run_id, STORED_RUNS, folder)
                ids = json.loads(Path(path).read_text())["runs"]
            runs += [self.client.get_run(run_id) for run_id in ids if self.is_there(run_id)]
        return runs

    def is_empty(self, experiment: str) -> bool:
        """Whether no run was ever recorded in the experiment."""
        return not self.client.search_runs([self._known_id(experiment)], max_results=1)

    def _start(self, experiment: str, name: str, tags: Mapping[str, str], token: str) -> str:
        everywhere = {
            TOKEN: token,
            "lockstep.version": __version__,
            ENVIRONMENT: _environment(),
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": "run.py",
            "mlflow.source.type": "LOCAL",
        }
        if commit := _git_commit():
            everywhere["mlflow.source.git.commit"] = commit
        run = self.client.create_run(self._known_id(experiment), tags={**everywhere, **tags}, run_name=name)
        return str(run.info.run_id)


def _artifact_location(uri: str) -> str | None:
    """Beside an SQLite store's file; a server or another database decides for itself."""
    return (sqlite_path(uri).parent / "artifacts").as_uri() if uri.startswith("sqlite") else None


def _overrides_tag(overrides: Iterable[str]) -> str:
    return " ".join(without_password(o) for o in overrides)


def _note(config: RunConfig, dataset: Dataset) -> str:
    """What a run is about, in a line."""
    model, trainer = config.model, config.trainer
    hidden = () if isinstance(model, LogRegConfig) else model.hidden_dims
    widths = "-".join(map(str, (dataset.n_features, *hidden, dataset.n_classes)))
    of_mlp = "" if isinstance(model, LogRegConfig) else f", {model.activation}, dropout {model.dropout:g}"
    optim = config.optim
    return (
        f"{model.name} {widths}{of_mlp}; {optim.name}, lr {optim.lr:g} ({optim.schedule}); {dataset.name}"
        f" ({dataset.digest[:8]}), batches of {config.data.batch_size}; {trainer.epochs} epochs,"
        f" {trainer.precision}, seed {config.seed}"
    )


@cache
def _environment() -> str:
    """What numbers and times depend on beside the code."""
    return json.dumps(
        {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "numpy", "mlflow")},
            "machine": platform.machine(),
            "system": platform.system(),
            "cores": joblib.cpu_count(),
        }
    )


@cache
def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
