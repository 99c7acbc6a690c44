"""An MLflow store: its experiments, starting runs, and finding runs."""

import getpass
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from lockstep._version import __version__
from lockstep.config import places
from lockstep.config.errors import Refused, without_password
from lockstep.recovery.description import Description
from lockstep.recovery.outputs_id import outputs_id
from lockstep.recovery.seal import Unreadable
from lockstep.tracking import environment, links
from lockstep.tracking.address import (
    ARTIFACTS,
    is_missing,
    sqlite_path,
    sqlite_uri,
    stood_in,
    without_secrets,
)
from lockstep.tracking.errors import is_outage, message_of
from lockstep.tracking.opening import open_store
from lockstep.tracking.patience import patient
from lockstep.tracking.run import Recorded, RecordedRun
from lockstep.tracking.tags import (
    ENVIRONMENT,
    KIND,
    NUMERICS,
    OUTPUTS,
    OVERRIDES,
    RUN_KEY,
    SWEEP_KEY,
    TOKEN,
    labels,
    of_data,
)
from lockstep.tracking.tags import description as described

LONGEST_NAME = 250
"""The longest name of an MLflow run, in characters: PostgreSQL and MySQL refuse longer ones."""

LONGEST_TAG = 8000
"""The longest value of a tag there."""

PAGE = 1000
"""The runs that one query returns."""


class Store:
    """An MLflow tracking store that has answered.

    Attributes:
        uri: the URI that it was opened with.
        address: the URI without a password, and for a file with its absolute path: equal in every process.

    Raises:
        Refused: if it can't be reached, opened or written.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.address = without_secrets(uri)
        self._experiment_ids: dict[str, str] = {}
        self._locations: dict[str, str] = {}  # of their artifacts
        try:
            self.client = open_store(uri)
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError) as error:
            raise Refused(
                [
                    f"tracking.uri={self.address}: this store can't be used: {message_of(error)}\n"
                    "  allowed: an SQLite file (sqlite:///folder/mlflow.db), a database URI,"
                    " or the http(s) address of a running MLflow server"
                ]
            ) from error
        if uri.startswith("sqlite"):
            self.address = sqlite_uri(sqlite_path(uri))

    def experiment_id(self, name: str) -> str:
        """Return the id of the experiment with this name; create the experiment if needed.

        Raises:
            Refused: if it was deleted, can't be created, or has its artifacts where the store was before.
            MlflowException: if the store does not answer.
        """
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                # The UI opens an experiment of this kind with its training runs, not in its GenAI view.
                kind = {"mlflow.experimentKind": "custom_model_development"}
                return self.client.create_experiment(name, _artifact_location(self.uri), kind)
            except MlflowException as error:
                if is_outage(error):
                    raise
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise Refused([f"tracking.experiment={name}: {error.message}"]) from error
            experiment = self.client.get_experiment_by_name(name)  # another process was faster
        assert experiment is not None
        experiment_id: str = experiment.experiment_id
        if experiment.lifecycle_stage == "deleted":
            restore = links.on_store(
                self.address, links.of_mlflow("experiments", "restore", "-x", experiment_id)
            )
            problem = f"was deleted in this store; restore it with `{restore}` or give another name"
            raise Refused([f"tracking.experiment={name}: {problem}"])
        if moved := self.moved([experiment]):
            raise Refused([moved])
        return experiment_id

    def moved(self, experiments: Sequence[Experiment] | None = None) -> str:
        """Return a message if experiments have their artifacts where this store stood before it was moved.

        Args:
            experiments: None for all.
        """
        if not self.uri.startswith("sqlite"):
            return ""
        for experiment in experiments or self.client.search_experiments():
            if folder := stood_in(experiment.artifact_location, sqlite_path(self.address)):
                return (
                    f"experiment {experiment.name}: its artifacts are expected in {folder / ARTIFACTS}, but"
                    " this store was moved or copied from there; correct that with"
                    f" `{links.on_store(self.address, links.verb('relocate'))}`"
                )
        return ""

    def known_id(self, experiment: str) -> str:
        """Return `experiment_id`, cached: one request, not one for each of a thousand runs."""
        if experiment not in self._experiment_ids:
            self._experiment_ids[experiment] = self.experiment_id(experiment)
        return self._experiment_ids[experiment]

    def artifact_location(self, experiment: str) -> str:
        """Return where an experiment has its artifacts, cached."""
        experiment_id = self.known_id(experiment)
        if experiment_id not in self._locations:
            found = self.client.get_experiment(experiment_id)
            self._locations[experiment_id] = str(found.artifact_location)
        return self._locations[experiment_id]

    def start(self, description: Description, parent: str | None) -> Recorded:
        """Start the MLflow run of a run folder; `find` finds it by the folder's token.

        Args:
            parent: the id of the sweep's parent run, None without a sweep.

        Raises:
            Unreadable: if the folder doesn't say which data the run was trained on.
        """
        tags = self.tags_of(description, parent)
        experiment_id = self.known_id(description.experiment)
        if not self.uri.startswith("sqlite"):
            tags = {key: value[:LONGEST_TAG] for key, value in tags.items()}
        try:
            run = self.client.create_run(experiment_id, tags=tags, run_name=shortened(description.name))
        except MlflowException as error:
            if not is_outage(error):
                del self._experiment_ids[description.experiment]
                self.known_id(description.experiment)  # says if it was deleted, and how to restore it
            raise
        return self._recorded(run.info.run_id, description)

    def tags_of(self, description: Description, parent: str | None) -> dict[str, str]:
        """Return the tags of a run folder's MLflow run, see `start`."""
        tags = {
            TOKEN: description.token,
            OUTPUTS: outputs_id(),
            "lockstep.version": __version__,
            OVERRIDES: " ".join(map(without_password, description.overrides)),
            ENVIRONMENT: environment.environment(),
            "mlflow.user": getpass.getuser(),
            "mlflow.source.name": Path(places.program().split()[-1]).name,
            "mlflow.source.type": "LOCAL",
        }
        if commit := environment.git_commit():
            tags["mlflow.source.git.commit"] = commit
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        if description.kind == "sweep":
            tags |= {KIND: "sweep", SWEEP_KEY: description.sweep_key or "", **description.labels}
            tags |= described(description.labels)
        else:
            config, data = description.run_config(self.uri), description.data_description()
            if data is None:
                raise Unreadable(
                    "version 0.1.0 wrote it, without the digest of its data: train the run again"
                )
            key = description.run_key or config.run_key(data.digest)
            own = labels(config.tracking)
            tags |= {KIND: "run", RUN_KEY: key, **own, **described(own, environment.note(config, data))}
            if description.numerics_version is not None:
                tags[NUMERICS] = str(description.numerics_version)
            tags |= of_data(data)
        return tags

    def resume(self, run_id: str, description: Description, n_journaled: int) -> Recorded:
        """Set an MLflow run that was started before to RUNNING, and continue it.

        Args:
            n_journaled: the iterations that the run's journal had.
        """
        self.client.update_run(run_id, "RUNNING")
        recorded = self._recorded(run_id, description)
        if isinstance(recorded, RecordedRun):
            recorded.keep_recorded(n_journaled)
        return recorded

    def _recorded(self, run_id: str, description: Description) -> Recorded:
        if description.kind == "sweep":
            return Recorded(self.client, run_id)
        config = description.run_config(self.uri)
        recorded = RecordedRun(self.client, run_id, config.trainer.log_every)
        recorded.describe(config, description.data_description())
        return recorded

    def find(self, experiment: str, token: str) -> str | None:
        """Return the id of the run that was started with `token`, or None."""
        found = self.client.search_runs(
            [self.known_id(experiment)], f"tags.`{TOKEN}` = '{token}'", max_results=1
        )
        return found[0].info.run_id if found else None

    def is_active(self, run_id: str) -> bool:
        """Tell whether a run exists and isn't deleted."""
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    @patient
    def search(self, experiment_ids: Sequence[str], search: str, order_by: Sequence[str] = ()) -> list[Run]:
        """Return all runs that match an MLflow filter."""
        runs: list[Run] = []
        token: str | None = None
        while token != "":
            page = self.client.search_runs(
                list(experiment_ids), search, max_results=PAGE, order_by=list(order_by), page_token=token
            )
            runs += page
            token = page.token or ""
        return runs

    @patient
    def has_runs(self, experiment: str) -> bool:
        """Tell whether the experiment has any runs beside parent runs."""
        search = f"tags.`{KIND}` = 'run'"
        return bool(self.client.search_runs([self.known_id(experiment)], search, max_results=1))


def shortened(name: str) -> str:
    """Return a run's name as every store takes it."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def existing_store(uri: str, is_moved: bool = False) -> Store:
    """Open a store that is there; never make one.

    Args:
        is_moved: whether it may be one that was moved, and can't find its artifacts.

    Raises:
        Refused: if it is not there, can't be used, or was moved.
    """
    if is_missing(uri):
        raise Refused([f"{uri}: there is no such store; give its address as MLFLOW_TRACKING_URI"])
    store = Store(uri)
    if not is_moved and (moved := store.moved()):
        raise Refused([moved])
    return store


def _artifact_location(uri: str) -> str | None:
    """Return the folder beside an SQLite store's file; None lets a server or another database decide."""
    return (sqlite_path(uri).parent / ARTIFACTS).as_uri() if uri.startswith("sqlite") else None
