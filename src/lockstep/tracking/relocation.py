"""A project that was moved or copied: MLflow's absolute artifact locations, detected and rewritten."""

import shutil
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlflow.entities import ViewType

from lockstep.config.errors import Refused
from lockstep.recovery.description import Description
from lockstep.recovery.journal import Journal
from lockstep.recovery.mending import mend
from lockstep.recovery.run_folder import RunFolder, folder_name, folders, unfinished
from lockstep.recovery.seal import Unreadable
from lockstep.tracking import _mlflow_compat
from lockstep.tracking.address import ARTIFACTS, local_path, sqlite_path, sqlite_uri, stood_in
from lockstep.tracking.store import Store


@dataclass(frozen=True)
class Relocated:
    """What `relocate` has done.

    Attributes:
        locations: how many locations in the store it has rewritten.
        backup: a copy of the store as it was.
    """

    locations: int
    backup: Path


def relocate(store: Store) -> Relocated | None:
    """Rewrite the artifact locations of a local SQLite store that was moved or copied with its artifacts.

    The folders of unfinished runs follow: the same command resumes them.

    Returns:
        None where every location is right.

    Raises:
        Refused: if it isn't an SQLite store, a command works on it, or its schema is not known.
    """
    if not store.uri.startswith("sqlite"):
        raise Refused([f"{store.address}: not an SQLite file; only the artifacts of one can be relocated"])
    file = sqlite_path(store.address)
    here = file.parent / ARTIFACTS
    old = _old_folders(store, file)
    if not old:
        return None
    for folder in folders(unfinished()):
        if (pid := folder.holder) is not None:
            raise Refused([f"process {pid} works on {folder.path}; end it first"])

    def rewritten(location: str) -> str:
        path = local_path(location)
        above = next((folder for folder in old if path is not None and path.is_relative_to(folder)), None)
        if path is None or above is None:
            return location
        now = here / path.relative_to(above)
        if path.exists() and not now.exists():  # written there since the move
            return location
        return now.as_uri() if location.startswith("file:") else str(now)

    backup = file.with_name(f"{file.name}.{time.strftime('%Y%m%d-%H%M%S')}.backup")
    try:
        changed = _mlflow_compat.rewrite_locations(file, rewritten, backup)
    except (ValueError, sqlite3.Error) as error:
        raise Refused([f"{file}: {error}; nothing was changed"]) from error
    _take_along({sqlite_uri(folder.parent / file.name) for folder in old}, store.address)
    return Relocated(changed, backup)


def _old_folders(store: Store, file: Path) -> list[Path]:
    """Return the folders in which artifacts were before."""
    experiments = store.client.search_experiments(view_type=ViewType.ALL)
    places = {stood_in(experiment.artifact_location, file) for experiment in experiments}
    return [place / ARTIFACTS for place in places if place is not None]


def _take_along(old: Collection[str], address: str) -> None:
    """Give run folders that are meant for an old address the new one, and the names that follow from it."""
    moved: list[tuple[RunFolder, Description, str]] = []
    names: dict[str, str] = {}
    for folder in folders(unfinished()):
        try:
            mend(folder)
            description = folder.read()
            if description.uri in old:
                names[folder.path.name] = _renamed(folder.path.name, description, address)
                moved.append((folder, description, names[folder.path.name]))
        except (Unreadable, Refused):
            continue
    for folder, description, name in moved:
        description.uri = address
        description.parent = description.parent and names.get(description.parent, description.parent)
        now = RunFolder(folder.path.with_name(name))
        if now.path.exists():
            folder.write(description)
        else:
            _rewrite(folder, now, description)


def _rewrite(folder: RunFolder, now: RunFolder, description: Description) -> None:
    """Write all of a run folder to a new one, since seals are those of one folder; remove the old one."""
    now.write(description)
    for event in (journal := Journal(folder.journal.path)).unread():
        now.journal.append(event)
    for n_events, path in folder.checkpoints().items():
        now.save(n_events, folder.state(path, n_events <= journal.n_unsealed))
    if folder.artifacts.exists():
        shutil.copytree(folder.artifacts, now.artifacts)
    if folder.owes:
        now.owe(folder.owed())
    folder.remove()


def _renamed(name: str, description: Description, address: str) -> str:
    """Return a folder's name at a new address; the same where it doesn't follow from the address."""
    identity: tuple[str, ...]
    if description.kind == "sweep":
        identity = (description.sweep_key or "",)
    elif description.data is not None:
        digest = description.data["digest"]
        key = description.run_key or description.run_config("unused").run_key(digest)
        identity = (description.experiment, key)
    else:
        return name
    kind: Literal["run", "sweep"] = "sweep" if description.kind == "sweep" else "run"
    follows = name == folder_name(kind, description.uri, *identity)
    return folder_name(kind, address, *identity) if follows else name
