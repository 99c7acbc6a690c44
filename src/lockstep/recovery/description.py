"""The description of a run folder: what the run is, and what of it the store has."""

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from lockstep.config.errors import Refused, problem
from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.results.history import Status


@dataclass
class Description:
    """A run folder's description, stored as `run.json`.

    Attributes:
        kind: a sweep's run; a run without a sweep ("single"), which is never resumed; or a sweep's parent.
        uri: the store's address, see Store.
        config: the run's config, None for a parent.
        parent: the name of the parent's folder.
        token: a tag of the MLflow run, to find it if the process that started it was killed.
        run_id: the MLflow run's id, once it exists.
        status: a parent's final status, once known; a run's is in its journal.
        closed: whether the run is KILLED in the store, because no process works on it.
        data: the data set, see DataDescription; None for a parent, and in folders of version 0.1.0.
        sweep_key: a parent's; identifies the sweep.
        labels: a parent's tags that the user gave.
        run_key: with which the run is recorded; None for a parent, and in folders of version 0.1.0.
        numerics_version: that trains it; None for a parent, and where version 2 or an earlier one did.
    """

    kind: Literal["run", "single", "sweep"]
    name: str
    overrides: list[str]
    uri: str
    experiment: str
    config: dict[str, Any] | None = None
    parent: str | None = None
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    run_id: str | None = None
    status: Status | None = None
    closed: bool = False
    data: dict[str, Any] | None = None
    sweep_key: str | None = None
    run_key: str | None = None
    numerics_version: int | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def run_config(self, uri: str) -> RunConfig:
        """Return the run's config, with the store at `uri`.

        Raises:
            Refused: if this version doesn't accept it.
        """
        stored = self.config or {}
        tree = {**stored, "tracking": {**stored.get("tracking", {}), "uri": uri}}
        try:
            return RunConfig.model_validate(tree)
        except ValidationError as error:
            problems = [problem(details, tree) for details in error.errors()]
            raise Refused([f"this version can't read its config: {'; '.join(problems)}"]) from error

    def data_description(self) -> DataDescription | None:
        """Return the data set's description, None for a parent and in folders of version 0.1.0."""
        return None if self.data is None else DataDescription.of_json(self.data)
