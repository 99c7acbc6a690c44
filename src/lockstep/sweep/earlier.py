"""What earlier numerics versions left of a run: if it had ended, it counts; else it is trained anew."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import asdict, replace

from mlflow.entities import Run

from lockstep.config.identity import NUMERICS_VERSION
from lockstep.recovery.description import Description
from lockstep.recovery.mending import mend
from lockstep.recovery.run_folder import RunFolder, folder_name, unfinished
from lockstep.sweep.entry import Entry
from lockstep.tracking.store import Store
from lockstep.tracking.stored import results
from lockstep.tracking.uploader import Uploader

log = logging.getLogger("lockstep")


def stored(store: Store, experiment: str, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Run]]:
    """Yield runs of which the store has a result, with the latest one; set the version that trained it.

    Of an entry's versions, the first one that has a result decides.
    """
    left = list(entries)
    for version in dict.fromkeys(version for entry in left for version in entry.keys):
        by_key: dict[str, list[Entry]] = {}
        for entry in left:
            if version in entry.keys:
                by_key.setdefault(entry.keys[version], []).append(entry)
        found = results(store, experiment, by_key)
        for key, run in found.items():
            for entry in by_key[key]:
                entry.version = version
                yield entry, run
        left = [entry for entry in left if entry.keys.get(version) not in found]


def folders(keys: Mapping[int, str], address: str, experiment: str, *of_search: str) -> dict[int, RunFolder]:
    """Return a run's folder by version: this one's, and those that earlier ones left and that can be read.

    Args:
        keys: the run's, by version; see `folder_name` for the others.
    """
    found = {
        version: RunFolder(unfinished() / folder_name("run", address, experiment, key, *of_search))
        for version, key in keys.items()
    }
    return {
        version: folder
        for version, folder in found.items()
        if version == NUMERICS_VERSION or (folder.path.exists() and folder.is_readable())
    }


def claim(entry: Entry, trains: bool, describe: Callable[[Entry], Description], uploader: Uploader) -> bool:
    """Claim and mend a run's folder and those that earlier versions left; tell whether this process has all.

    Where the run had ended, that folder becomes the entry's. An interrupted one becomes KILLED in the store,
    and its folder is removed: from its checkpoint, this version would not get to the run's numbers.

    Args:
        trains: whether the run is trained if it had not ended; else it is pruned as it is.
        describe: returns the description of a run whose folder has lost it.
    """
    if not entry.folder.claim():
        return False
    for version, folder in entry.earlier.items():
        if not folder.claim():
            entry.folder.release()
            return False
        with folder.in_training():
            mend(folder)
        if not folder.path.exists():  # another process has left it meanwhile
            folder.release()
            continue
        before = copy(entry)
        before.version, before.folder = version, folder
        description = folder.read() if folder.exists() else describe(before)
        has_ended = folder.history()[1] is not None
        is_kept = (has_ended or not trains) and not entry.folder.path.exists()
        kind = description.kind if is_kept else "single"  # which is never resumed
        # Version 0.1.0 wrote no data and key; the folder's name proves them.
        folder.write(replace(description, kind=kind, data=asdict(entry.data), run_key=before.run_key))
        if is_kept:
            entry.folder.release()
            entry.version, entry.folder = version, folder
            return True
        if not has_ended:
            log.info("%s: interrupted under numerics version %d; it is trained anew", entry.name, version)
        uploader.adopt(folder)
    with entry.folder.in_training():  # so that no other process's worker adds to it
        mend(entry.folder)
    return True
