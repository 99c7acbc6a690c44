"""Damaged state: set aside, so that a run trains again from what is whole."""

import logging
import os
import shutil
from itertools import count
from pathlib import Path

from lockstep.recovery.journal import Ended, Journal
from lockstep.recovery.run_folder import RunFolder
from lockstep.recovery.seal import Damaged, Unreadable

log = logging.getLogger("lockstep")

DAMAGED = "damaged"
"""The folder, beside the run folders, for what is damaged."""


def mend(folder: RunFolder) -> None:
    """Move what is damaged to `damaged/`, with a line each: description, journal, artifacts, checkpoints.

    The journal keeps the events before the first damaged one; checkpoints that it has too few events for go
    as well. A run whose artifacts are damaged has not ended: they are written again. What another version
    wrote stays as it is.

    Args:
        folder: claimed by this process; no worker trains its run.
    """
    try:
        if folder.exists():
            folder.read()
    except Damaged as error:
        _set_aside(folder, folder.path / "run.json", error)
    except Unreadable:
        return
    try:
        n_events, n_unsealed = _mend_journal(folder)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return  # an event of another version
    for done, path in folder.checkpoints().items():
        try:
            folder.state(path, done <= n_unsealed)
            if done > n_events:
                raise Damaged(f"the journal has {n_events} epochs")
        except Damaged as error:
            _set_aside(folder, path, error)


def _mend_journal(folder: RunFolder) -> tuple[int, int]:
    """Mend a run's journal and artifacts; return its epochs and parts, and its events of version 0.1.0."""
    journal, n_events, whole = Journal(folder.journal.path), 0, 0
    try:
        for event in journal.unread():
            if isinstance(event, Ended):
                if event.artifacts and folder.artifact_seals() != event.artifacts:
                    os.truncate(journal.path, whole)  # first: a kill may come in between
                    folder.artifacts.mkdir(exist_ok=True)
                    damaged = Damaged("it is not what the journal says")
                    _set_aside(folder, folder.artifacts, damaged)
                break
            n_events, whole = n_events + (not event.diverged), journal.read_bytes
    except Damaged as error:
        kept = free_place(folder.path.parent, journal.path)
        shutil.copyfile(journal.path, kept)
        os.truncate(journal.path, whole)
        _log(folder, journal.path, error, kept)
    return n_events, journal.n_unsealed


def _set_aside(folder: RunFolder, path: Path, why: Damaged) -> None:
    _log(folder, path, why, path.rename(free_place(folder.path.parent, path)))


def free_place(root: Path, path: Path) -> Path:
    """Return a free place for a damaged file, below `root`, in its folder DAMAGED."""
    beside = root / DAMAGED / path.parent.name
    beside.mkdir(parents=True, exist_ok=True)
    places = (beside / (path.name + (f".{n}" if n else "")) for n in count())
    return next(place for place in places if not place.exists())


def _log(folder: RunFolder, path: Path, why: Damaged, kept: Path) -> None:
    log.warning("%s is damaged: %s; it is now %s", path.relative_to(folder.path.parent), why, kept)
