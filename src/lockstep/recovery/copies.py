"""Copies of run folders on other machines: what one copy has, and another lacks.

A worker of a cluster trains in a copy of a run's folder, and the command's folder follows it. Both have the
same name, for which their content is sealed.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lockstep.recovery.journal import Ended, Journal
from lockstep.recovery.run_folder import RunFolder


@dataclass(frozen=True)
class Has:
    """What a copy has.

    Attributes:
        journal: bytes of whole events.
        checkpoint: the events before its last checkpoint, -1 without one.
    """

    journal: int = 0
    checkpoint: int = -1

    @classmethod
    def of(cls, folder: RunFolder) -> "Has":
        """Return what a folder has. A line of its journal that a kill cut short is removed."""
        folder.journal.mend()
        path = folder.journal.path
        return cls(path.stat().st_size if path.exists() else 0, max(folder.checkpoints(), default=-1))

    def after(self, changes: "Changes") -> "Has":
        """Return what a copy has once it has these changes, too."""
        n_events = self.checkpoint if changes.checkpoint is None else changes.checkpoint[0]
        return Has(self.journal + len(changes.journal), n_events)


@dataclass(frozen=True)
class Changes:
    """What a copy lacks.

    Attributes:
        journal: the bytes of its next events.
        checkpoint: a later checkpoint: the events before it, and the file's content.
        files: of a run that has ended: its artifacts and the weights kept beside its folder, as
            `<root>/<path>`, see `changes`.
    """

    journal: bytes = b""
    checkpoint: tuple[int, bytes] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


def changes(folder: RunFolder, has: Has, roots: Mapping[str, Path]) -> Changes:
    """Return what a copy lacks that has only this.

    Args:
        roots: the folders of a run's files, by name.

    Raises:
        Damaged: if an event is not what was written.
    """
    # The checkpoint first: so the journal has all events before it.
    checkpoint = None
    saved = folder.checkpoints()
    if (latest := max(saved, default=-1)) > has.checkpoint:
        with suppress(FileNotFoundError):  # a later one has replaced it
            checkpoint = latest, saved[latest].read_bytes()
    journal = Journal(folder.journal.path)
    journal.read_bytes = has.journal
    events, content = list(journal.unread()), b""
    if events:
        with journal.path.open("rb") as file:
            file.seek(has.journal)
            content = file.read(journal.read_bytes - has.journal)
    files = {}
    if any(isinstance(event, Ended) for event in events):
        files = {
            f"{name}/{path.relative_to(root).as_posix()}": path.read_bytes()
            for name, root in roots.items()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }
    return Changes(content, checkpoint, files)


def apply(folder: RunFolder, changes: Changes, roots: Mapping[str, Path]) -> None:
    """Write what a copy lacked: files before the end of the run that they belong to.

    Raises:
        OSError: if it can't be written.
    """
    if changes.files:
        shutil.rmtree(folder.artifacts, ignore_errors=True)
    for place, content in changes.files.items():
        name, _, path = place.partition("/")
        target = roots[name] / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    if changes.journal:
        folder.journal.extend(changes.journal)
    if changes.checkpoint is not None:
        folder.keep(*changes.checkpoint)
