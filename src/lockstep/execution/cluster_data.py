"""Data sets on the machines of a cluster: from their own caches, or sent once to each machine.

A worker knows a data set by its digest: what other bytes have its name is not used. The functions without
`client` run in the workers.
"""

import asyncio
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from lockstep.config.data_config import ArraysConfig, DataConfig, DownloadedConfig, TableConfig
from lockstep.config.errors import Refused
from lockstep.data import sources
from lockstep.data.array_files import NAMES, ArrayFiles, Prepared, Source
from lockstep.data.description import DataDescription

if TYPE_CHECKING:
    from distributed import Client

PART_BYTES = 2**24
"""The bytes that are sent at a time: the scheduler, too, holds a part in memory."""

N_KEPT = 64
"""The data sets that a worker holds open, each with five files: the last ones that it was given."""

_sources = dict[str, Source]()  # by digest
_received = dict[str, dict[str, "TemporaryDirectory[str]"]]()  # by digest, and by sending


def give(client: "Client", worker: str, key: str | None, files: ArrayFiles, config: DataConfig) -> None:
    """Let a worker have a data set."""
    digest = files.description.digest
    if client.run(find, key, config, digest, workers=[worker])[worker]:
        return
    sending = uuid.uuid4().hex
    for name, path in zip(NAMES, files.paths, strict=True):
        with open(path, "rb") as file:
            while part := file.read(PART_BYTES):
                client.run(take, digest, sending, name, part, workers=[worker])
    client.run(keep, key, files.description, sending, workers=[worker])


async def find(key: str | None, config: DataConfig, digest: str) -> bool:
    """Find a data set in this machine's cache, or fetch it as a command would; tell whether it is there."""
    found = _sources.get(digest) or await asyncio.to_thread(_found, key, config)
    if found is None or found.description.digest != digest:
        return False
    _hold(digest, found)
    return True


def take(digest: str, sending: str, name: str, part: bytes) -> None:
    """Take the next part of one of a data set's files.

    Each sending has files of its own: one may have been cut off, and several commands may send the same data
    set at once.
    """
    folders = _received.setdefault(digest, {})
    if sending not in folders:
        folders[sending] = TemporaryDirectory(prefix="lockstep-data-")
    with open(Path(folders[sending].name) / name, "ab") as file:
        file.write(part)


async def keep(key: str | None, description: DataDescription, sending: str) -> None:
    """Keep a data set that was sent whole in this machine's cache; drop what else was sent of it."""
    folders = _received.pop(description.digest, {})
    if description.digest not in _sources:
        arrays = [np.load(Path(folders[sending].name) / name, mmap_mode="r") for name in NAMES]
        prepare = lambda: Prepared(description, arrays)  # noqa: E731
        _hold(description.digest, await asyncio.to_thread(Source, key, description.source, prepare))
    for folder in folders.values():
        folder.cleanup()


def source(digest: str) -> Source:
    """Return a data set that `give` has brought."""
    return _sources[digest]


def _hold(digest: str, found: Source) -> None:
    """Hold a data set open, as the last one that was given."""
    _sources.pop(digest, None)
    _sources[digest] = found
    for of_earlier in [*_sources][:-N_KEPT]:
        del _sources[of_earlier]


def _found(key: str | None, config: DataConfig) -> Source | None:
    if isinstance(config, DownloadedConfig):
        config = config.model_copy(update={"root": None})  # a folder of the command's machine
    try:
        if not isinstance(config, ArraysConfig | TableConfig):
            found = sources.load(config)
        elif key is None:
            return None
        else:
            found = Source(key, config.path, _nothing)
        found.files()  # damaged ones are made again, or else sent
        return found
    except (LookupError, Refused, OSError):
        return None


def _nothing() -> Prepared:
    raise LookupError
