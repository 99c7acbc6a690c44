"""Run folders: durable state of runs that are not fully in the store, under `outputs/unfinished/`.

A sweep's parent run has a folder as well. A process may be killed at any moment; the same command resumes
from these folders.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lockstep.config.errors import Refused, problem
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
        if self.data is None:
            return None
        shape, names = tuple(self.data["feature_shape"]), tuple(self.data["class_names"])
        return DataDescription(**{**self.data, "feature_shape": shape, "class_names": names})


class Unreadable(Exception):
    """A run folder that this version can't read; the message says why."""


class RunFolder:
    """The folder of one run, or of a sweep's parent.

    run.json: see Description. journal: see Journal. checkpoint-<epochs>.pt: the run's state after <epochs>.
    artifacts/: written when the run has ended. trouble: why the last upload failed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal")
        self.artifacts = path / "artifacts"

    def create(self, description: Description) -> None:
        """Create the folder; replace the remains of an interrupted removal."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        self.write(description)

    def claim(self) -> bool:
        """Claim the folder; tell whether this process has it, now or from before."""
        return self._claims.take(self.path.name)

    def release(self) -> None:
        """Release the claim."""
        self._claims.release(self.path.name)

    @property
    def _claims(self) -> Claims:
        return Claims(self.path.parent / "claims")

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Train the run alone: wait for a worker that briefly outlives its killed command."""
        self._claims.wait_for(self._trains, f"still trains the run in {self.path}")
        try:
            yield
        finally:
            self._claims.release(self._trains)

    @property
    def _trains(self) -> str:
        return f"{self.path.name} trains"

    @property
    def holder(self) -> int | None:
        """The id of another process that has claimed the folder or trains the run, None without one."""
        claimed, trains = (self._claims.holder(name) for name in (self.path.name, self._trains))
        return trains if claimed is None else claimed

    def exists(self) -> bool:
        try:
            return (self.path / "run.json").exists()
        except PermissionError:  # it is there, and can't be read
            return True

    def read(self) -> Description:
        """Return the folder's description.

        Raises:
            Unreadable: if it isn't one of this version's.
        """
        try:
            written = json.loads((self.path / "run.json").read_text())
            if unknown := written.keys() - {known.name for known in fields(Description)}:
                raise Unreadable(f"another version of Lockstep wrote it: {', '.join(sorted(unknown))}")
            return Description(**written)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise Unreadable(f"run.json can't be read: {error}") from error

    def is_readable(self) -> bool:
        """Tell whether this version can read all of it, or it doesn't exist."""
        try:
            if self.exists():
                description = self.read()
                if description.kind != "sweep":
                    description.run_config("unused")
                    self.history()
        except (Unreadable, Refused):
            return False
        return True

    @property
    def trouble(self) -> str:
        """Why the last upload failed, empty if it did not."""
        with suppress(OSError):
            return (self.path / "trouble").read_text()
        return ""

    def note_trouble(self, trouble: str) -> None:
        """Keep why the last upload failed, for `python -m lockstep status`."""
        with suppress(OSError):  # a note, nothing more
            if trouble:
                (self.path / "trouble").write_text(trouble)
            else:
                (self.path / "trouble").unlink()

    def write(self, description: Description) -> None:
        _replace(self.path / "run.json", json.dumps(asdict(description), indent=1).encode())

    def history(self) -> tuple[History, Ended | None]:
        """Return the journal's history, and its end if the run has ended.

        Raises:
            Unreadable: if the journal is damaged.
        """
        history = History()
        try:
            for event in Journal(self.journal.path).unread():
                if isinstance(event, Ended):
                    return history, event
                history.add(event)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise Unreadable(f"its journal can't be read: {error!r}") from error
        return history, None

    def save(self, epochs: int, state: bytes) -> None:
        """Write a checkpoint after epochs that the journal has; delete earlier checkpoints."""
        self.journal.sync()
        saved = self._checkpoints()
        path = self.path / f"checkpoint-{epochs}.pt"
        _replace(path, state)
        for earlier in saved.values():
            if earlier != path:
                earlier.unlink()

    def checkpoint(self) -> tuple[History, bytes] | None:
        """Return the history up to the last checkpoint, and its state; None without a checkpoint."""
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
        """Delete the folder."""
        # run.json goes first: a folder without it is no run's, so an interrupted removal does no harm.
        (self.path / "run.json").unlink()
        shutil.rmtree(self.path)

    def _checkpoints(self) -> dict[int, Path]:
        return {int(path.stem.partition("-")[2]): path for path in self.path.glob("checkpoint-*.pt")}


def folders(root: Path) -> Iterator[RunFolder]:
    """Yield the run folders in `root`, or `root` itself if it is one."""
    for path in [root, *sorted(root.glob("*/"))]:
        if (folder := RunFolder(path)).exists():
            yield folder


def folder_name(kind: Literal["run", "sweep"], *identity: str) -> str:
    """Return the name of the folder for a run or a sweep.

    Args:
        identity: for a run, the store's address, the experiment, the run key, and for a trial also the study
            and the trial's number; for a sweep, the store's address and the sweep key.
    """
    return hashlib.sha256(json.dumps([kind, *identity]).encode()).hexdigest()[:32]


def _replace(path: Path, content: bytes) -> None:
    """Replace a file atomically, even if a power cut interrupts it."""
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
