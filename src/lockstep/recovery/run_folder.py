"""Run folders: durable state of runs that are not fully in the store, under `outputs/unfinished/`.

A sweep's parent run has a folder as well. A process may be killed at any moment; the same command resumes
from these folders.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

from lockstep.config.errors import Refused
from lockstep.config.places import outputs
from lockstep.recovery import durable
from lockstep.recovery.claims import Claims
from lockstep.recovery.description import Description
from lockstep.recovery.journal import Ended, Journal
from lockstep.recovery.seal import Damaged, Unreadable, seal_of, sealed, unsealed
from lockstep.results.history import Epoch, History


def unfinished() -> Path:
    """Return the folder of all run folders."""
    return outputs() / "unfinished"


SHARED = "shared"
"""The folder, in a sweep's parent's, of files that its runs share while they train."""

KEPT_WEIGHTS = "weights"
"""The folder in SHARED with the weights of runs, of which the winner keeps its own."""

OWED = "owed"
"""The file of a sweep's parent with what is to be done once its runs are in the store."""

REMOVED, ZIP = ".removed", b"PK"
"""The end of a run folder's name while it is deleted; the start of a checkpoint without a seal."""


class RunFolder:
    """The folder of one run, or of a sweep's parent.

    run.json: see Description. journal: see Journal. checkpoint-<n>.pt: the run's state after n events of its
    journal. artifacts/: written when the run has ended. owed: see `owe`. trouble: why the last upload failed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal")
        self.artifacts = path / "artifacts"

    def create(self, description: Description) -> None:
        """Create the folder, or its description where that was damaged.

        It is not synced, which takes 5 to 50 ms, until `write`, before a store hears of it.
        """
        self.write(description, is_synced=False)

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
            Damaged: if it is not what was written.
            Unreadable: if it isn't one of this version's.
        """
        try:
            content = (self.path / "run.json").read_bytes()
        except OSError as error:
            raise Unreadable(f"run.json can't be read: {error}") from error
        try:
            written = json.loads(content)
            seal = written.pop("seal", None)  # version 0.1.0 has none
        except (ValueError, AttributeError, TypeError) as error:
            raise Damaged(f"run.json can't be read: {error}") from error
        if seal is not None and seal != self._seal(written):
            raise Damaged("its checksum is not that of its content")
        if unknown := written.keys() - {known.name for known in fields(Description)}:
            raise Unreadable(f"another version of Lockstep wrote it: {', '.join(sorted(unknown))}")
        try:
            return Description(**written)
        except TypeError as error:
            raise Unreadable(f"run.json can't be read: {error}") from error

    def is_readable(self) -> bool:
        """Tell whether this version can read it, is to mend it, or it doesn't exist."""
        try:
            if self.exists():
                description = self.read()
                if description.kind != "sweep":
                    description.run_config("unused")
                    self.history()
        except Damaged:
            return True
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

    def write(self, description: Description, is_synced: bool = True) -> None:
        values = asdict(description)
        written = json.dumps({**values, "seal": self._seal(values)}, indent=1)
        durable.replace(self.path / "run.json", written.encode(), is_synced)

    def _seal(self, values: dict[str, Any]) -> str:
        return seal_of(json.dumps(values).encode(), self._place("run.json"))

    def _place(self, file: str) -> str:
        return f"{self.path.name}/{file}"

    def history(self) -> tuple[History, Ended | None]:
        """Return the journal's history, and its end if the run has ended.

        Raises:
            Damaged: if the journal is not what was written.
            Unreadable: if it isn't one of this version's.
        """
        history = History()
        try:
            for event in Journal(self.journal.path).unread():
                if isinstance(event, Ended):
                    history.restored_epoch = event.restored_epoch
                    return history, event
                history.add(event)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise Unreadable(f"its journal can't be read: {error!r}") from error
        return history, None

    def save(self, n_events: int, state: bytes) -> None:
        """Write a checkpoint after events that the journal has; delete earlier checkpoints."""
        self.keep(n_events, sealed(state, self._place(f"checkpoint-{n_events}.pt")))

    def keep(self, n_events: int, content: bytes) -> None:
        """Write a checkpoint that is sealed already, as `save` does."""
        self.journal.sync()
        saved, path = self.checkpoints(), self.path / f"checkpoint-{n_events}.pt"
        durable.replace(path, content)
        for earlier in saved.values():
            if earlier != path:
                earlier.unlink()

    def checkpoint(self) -> tuple[History, bytes] | None:
        """Return the history up to the last checkpoint that is whole, and its state; None without one."""
        for n_events, path in sorted(self.checkpoints().items(), reverse=True):
            history, journal = History(), Journal(self.journal.path)
            try:
                for event in journal.unread():
                    if isinstance(event, Epoch) and len(history.marks) < n_events:
                        history.add(event)
                state = self.state(path, n_events <= journal.n_unsealed)
            except Damaged:  # until the folder is mended
                continue
            if len(history.marks) == n_events and history.diverged_at is None:
                return history, state
        return None

    def checkpoints(self) -> dict[int, Path]:
        """Return the files of checkpoints by the number of events before them: epochs, and parts of some."""
        return {int(path.stem.partition("-")[2]): path for path in self.path.glob("checkpoint-*.pt")}

    def state(self, path: Path, is_of_first_version: bool) -> bytes:
        """Return the state in a checkpoint's file.

        Args:
            is_of_first_version: whether version 0.1.0 wrote the epochs before it.

        Raises:
            Damaged: if it is not what was written.
        """
        if not ((content := path.read_bytes()).startswith(ZIP) and is_of_first_version):
            return unsealed(content, self._place(path.name))
        try:
            if (file := ZipFile(io.BytesIO(content)).testzip()) is not None:
                raise Damaged(f"the checksum of {file} is wrong")
        except BadZipFile as error:
            raise Damaged(str(error)) from error
        return content

    @property
    def owes(self) -> bool:
        """Whether it is the folder of a sweep whose runs have ended, and that has more to do."""
        return (self.path / OWED).exists()

    def owe(self, what: bytes) -> None:
        """Write what a sweep has to do once its runs are in the store."""
        durable.replace(self.path / OWED, sealed(what, self._place(OWED)))

    def begin_again(self) -> None:
        """Take back a sweep's end: its command goes on."""
        if (description := self.read()).status is not None:
            description.status = None
            self.write(description)
        (self.path / OWED).unlink(missing_ok=True)

    def owed(self) -> bytes:
        """Return what `owe` wrote.

        Raises:
            Damaged: if it is not what was written.
        """
        return unsealed((self.path / OWED).read_bytes(), self._place(OWED))

    def artifact_seals(self) -> dict[str, str]:
        """Return the seal of each artifact, by its path in their folder."""
        paths = {path.relative_to(self.artifacts).as_posix(): path for path in self.artifacts.rglob("*")}
        return {
            name: seal_of(path.read_bytes(), name) for name, path in sorted(paths.items()) if path.is_file()
        }

    def remove(self) -> None:
        """Delete the folder."""
        gone = self.path.with_name(self.path.name + REMOVED)  # in one step: a part of a folder is no run's
        if gone.exists():
            shutil.rmtree(gone)
        with suppress(FileNotFoundError):  # somebody has removed it
            self.path.rename(gone)
            shutil.rmtree(gone)


def kept_weights(shared: Path, run_key: str) -> Path:
    """Return the folder in SHARED for a run's weights, until it is known which run is best."""
    return shared / KEPT_WEIGHTS / run_key


def is_of_folders(error: BaseException) -> bool:
    """Tell whether a run folder could not be read or written: somebody has moved it, or taken the rights."""
    return isinstance(error, OSError) and str(error.filename).startswith(str(unfinished()))


def folders(root: Path) -> Iterator[RunFolder]:
    """Yield the run folders in `root`, or `root` itself if it is one."""
    for path in (root, *sorted(root.glob("*/"))):
        if path.suffix != REMOVED and (folder := RunFolder(path)).exists():
            yield folder


def folder_name(kind: Literal["run", "sweep"], *identity: str) -> str:
    """Return the name of the folder for a run or a sweep.

    Args:
        identity: for a run, the store's address, the experiment, the run key, and for a trial also the study
            and the trial's number; for a sweep, the store's address and the sweep key.
    """
    return hashlib.sha256(json.dumps([kind, *identity]).encode()).hexdigest()[:32]
