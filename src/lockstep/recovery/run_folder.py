"""The state of runs that the store doesn't hold in full: `outputs/unfinished/`, a folder for each.

A sweep's parent run has a folder as well. All is written so that a process may be killed at any moment, and
the next one that is given the same command resumes from here.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.recovery.claims import Claims
from lockstep.recovery.journal import Ended, Journal
from lockstep.results.history import Epoch, History, Status


def unfinished() -> Path:
    """Return the folder of all run folders."""
    return Path(os.environ.get("LOCKSTEP_ROOT", ".")).absolute() / "outputs" / "unfinished"


@dataclass
class Description:
    """What a run folder is about, as `run.json` keeps it.

    Attributes:
        kind: a sweep's run; a run without a sweep, which is never resumed; or a sweep's parent.
        uri: the store's address, see Store.
        config: the run's, or None for a parent.
        parent: the parent's folder, by name.
        token: marks the MLflow run, in case its id got lost with the process that made it.
        run_id: the MLflow run, once there is one.
        status: the parent's last one, once it is known; for a run, the journal tells.
        closed: whether the store says that nobody works on it: KILLED.
        data: what the run trains on, see DataDescription; None of a parent, and in folders of version 0.1.0.
        sweep_key: identifies the sweep; of a parent.
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

    def run_config(self, uri: str) -> RunConfig:
        """Return the run's config, recorded in the store at `uri`."""
        assert self.config is not None
        tracking = {**self.config["tracking"], "uri": uri}
        return RunConfig.model_validate({**self.config, "tracking": tracking})

    def data_description(self) -> DataDescription | None:
        """Return what the run trains on, where the folder says."""
        if self.data is None:
            return None
        shape, names = tuple(self.data["feature_shape"]), tuple(self.data["class_names"])
        return DataDescription(**{**self.data, "feature_shape": shape, "class_names": names})


class RunFolder:
    """The folder of one run, or of a sweep's parent.

    run.json: see Description. journal: see Journal. checkpoint-<epochs>.pt: the state after so many epochs.
    artifacts/: written when the run has ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal")
        self.artifacts = path / "artifacts"

    def create(self, description: Description) -> None:
        """Make it, in place of what is left of one whose removal was cut short."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        self.write(description)

    def claim(self) -> bool:
        """Whether this process, and no other, works on it from now on, or did already."""
        return self._claims.take(self.path.name)

    def release(self) -> None:
        """Leave it to others."""
        self._claims.release(self.path.name)

    @property
    def _claims(self) -> Claims:
        return Claims(self.path.parent / "claims")

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """A process that trains the run is the only one: a worker outlives a killed parent by a moment."""
        name = f"{self.path.name} trains"
        self._claims.wait_for(name)
        try:
            yield
        finally:
            self._claims.release(name)

    def exists(self) -> bool:
        return (self.path / "run.json").exists()

    def read(self) -> Description:
        return Description(**json.loads((self.path / "run.json").read_text()))

    def write(self, description: Description) -> None:
        _replace(self.path / "run.json", json.dumps(asdict(description), indent=1).encode())

    def history(self) -> tuple[History, Ended | None]:
        """All that the journal tells."""
        history = History()
        for event in Journal(self.journal.path).unread():
            if isinstance(event, Ended):
                return history, event
            history.add(event)
        return history, None

    def save(self, epochs: int, state: bytes) -> None:
        """Keep the run's state after so many epochs, all of which the journal has; drop earlier ones."""
        self.journal.sync()
        saved = self._checkpoints()
        path = self.path / f"checkpoint-{epochs}.pt"
        _replace(path, state)
        for earlier in saved.values():
            if earlier != path:
                earlier.unlink()

    def checkpoint(self) -> tuple[History, bytes] | None:
        """Return the last state that was saved, and the history until then."""
        saved = self._checkpoints()
        if not saved:
            return None
        epochs = max(saved)
        history = History()
        for event in Journal(self.journal.path).unread():
            if isinstance(event, Epoch) and history.epochs < epochs:
                history.add(event)
        return history, saved[epochs].read_bytes()

    def remove(self) -> None:
        """Nothing is left to do."""
        # run.json goes first: what is left of a folder whose removal is cut short is no run's.
        (self.path / "run.json").unlink()
        shutil.rmtree(self.path)

    def _checkpoints(self) -> dict[int, Path]:
        return {int(path.stem.partition("-")[2]): path for path in self.path.glob("checkpoint-*.pt")}


def folders(root: Path) -> Iterator[RunFolder]:
    """The folders in `root`, or `root` itself where it is one."""
    for path in [root, *sorted(root.glob("*/"))]:
        if (folder := RunFolder(path)).exists():
            yield folder


def folder_name(kind: Literal["run", "sweep"], *identity: str) -> str:
    """Return the name of the folder for a run or a sweep.

    Args:
        identity: of a run, the store's address, the experiment, the run key, and of a trial the study and its
            number; of a sweep, the store's address and what the sweep is.
    """
    return hashlib.sha256(json.dumps([kind, *identity]).encode()).hexdigest()[:32]


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that there is always the old one or the new one, power cuts included."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
