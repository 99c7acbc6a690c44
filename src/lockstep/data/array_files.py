"""A data set's arrays in files, which every process maps into its memory; kept for the next command.

They are in the cache folder, in `arrays/<key>/`: a file in NumPy's format for each array, and `arrays.json`:
its checksum, and what describes them. A folder appears whole or not at all. Where the cache folder can't be
written, the files have no names, and end with the process.
"""

import functools
import json
import logging
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from platformdirs import user_cache_path

from lockstep.config.errors import Refused
from lockstep.data.description import DataDescription

Array = NDArray[Any]

log = logging.getLogger("lockstep")

DESCRIBED = "arrays.json"

NAMES = ("x_train", "y_train", "x_test", "y_test", "x_blank")
"""The arrays of a data set, see lockstep.data.datasets.Dataset."""

KEPT_BYTES, KEPT = 4 * 2**30, 32
"""The most bytes and data sets that are kept. What was used longest ago is removed first."""

HEADER_BYTES = 4096
"""At least as long as the header of NumPy's files."""


@dataclass(frozen=True)
class Prepared:
    """A data set's arrays, scaled.

    Attributes:
        arrays: of NAMES, in this order, or the files that have them.
        remarks: what is logged when the data set is loaded: levels and texts.
        is_kept: False if the data changed while they were read.
    """

    description: DataDescription
    arrays: Sequence[Array | Path]
    remarks: Sequence[tuple[int, str]] = ()
    is_kept: bool = True


@dataclass(frozen=True)
class ArrayFiles:
    """The files of NAMES, which any process can open while the process that loaded them lives."""

    description: DataDescription
    paths: tuple[Path, ...]


class Source:
    """A data set whose arrays are in files that this process holds open.

    Args:
        key: equal for equal arrays, a name for a folder; None if they are not kept.
        source: see DataDescription; it may differ for equal arrays.
        prepare: returns the arrays, where no files are kept.

    Attributes:
        key: the same.
        is_kept: whether its files are, or would be if the cache folder could be written.

    Raises:
        Refused: if `prepare` does.
        OSError: if the disk is full.
    """

    def __init__(self, key: str | None, source: str, prepare: Callable[[], Prepared]) -> None:
        self._folder = None if key is None else user_cache_path("lockstep") / "arrays" / key
        self.key, self.is_kept = key, key is not None
        self._prepare, self._source = prepare, source
        self._opened = self._found() or self._made()
        self.description = self._opened.description
        for level, text in self._opened.remarks:
            _say_once(level, f"{source}: {text}")

    def files(self) -> ArrayFiles:
        """Return the files, checked once: damaged ones are made again.

        Raises:
            Refused: if they are damaged, and the data set has changed since it was loaded.
            OSError: if the disk is full.
        """
        if not self._opened.is_intact():
            log.warning("%s: the arrays in %s are damaged; they are made again", self._source, self._folder)
            assert self._folder is not None  # what this process has made is not checked
            shutil.rmtree(self._folder, ignore_errors=True)
            self._opened = self._made()
            if self._opened.description != self.description:
                raise Refused([f"{self._source}: has changed since this command has read it"])
        return ArrayFiles(self.description, self._opened.paths)

    def _found(self) -> "_Opened | None":
        """Return the files that are kept; None if there are none, or they can't be read."""
        if self._folder is None:
            return None
        try:
            with suppress(PermissionError):
                os.utime(self._folder)
            return _Opened(self._folder, self._source)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _made(self) -> "_Opened":
        """Make the files, and keep them if there is a place for them."""
        prepared = self._prepare()
        cache = _cache_folder()
        self.is_kept &= prepared.is_kept
        if cache is not None and self._folder is not None and self.is_kept:
            with FileLock(cache / "arrays.lock"):
                if (found := self._found()) is not None:  # another process has made them by now
                    return found
                shutil.rmtree(self._folder, ignore_errors=True)
                part = self._folder.with_name("part")
                shutil.rmtree(part, ignore_errors=True)  # a kill may have left it
                part.mkdir(parents=True)
                try:
                    _write(prepared, part)
                except OSError:
                    shutil.rmtree(part)
                    raise
                part.rename(self._folder)
                opened = _Opened(self._folder, self._source)
                _remove_others(self._folder)
        else:
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                _write(prepared, Path(folder))
                opened = _Opened(Path(folder), self._source)
        opened.checksums = None
        return opened


@functools.cache
def _say_once(level: int, text: str) -> None:
    """Log what the folds of a data set, say, have in common."""
    log.log(level, "%s", text)


class _Opened:
    """The files of a folder, open until this object ends, and what describes them.

    Attributes:
        checksums: what they have to be, None once they are known to be intact.
    """

    def __init__(self, folder: Path, source: str) -> None:
        checksum, _, text = (folder / DESCRIBED).read_text().partition("\n")
        if int(checksum) != zlib.crc32(text.encode()):
            raise ValueError(f"{folder / DESCRIBED} is damaged")
        described = json.loads(text)
        self.description = DataDescription.of_json({**described["description"], "source": source})
        self.remarks = [(int(level), str(text)) for level, text in described["remarks"]]
        self.checksums: list[int] | None = list(described["checksums"])
        with ExitStack() as stack:
            files = [stack.enter_context(open(folder / f"{name}.npy", "rb")) for name in NAMES]
            held = Path(f"/proc/{os.getpid()}/fd")  # by which a file that is removed can be opened, in Linux
            has_proc = held.exists()
            self.paths = tuple(held / str(file.fileno()) if has_proc else Path(file.name) for file in files)
            finalize(self, stack.pop_all().close)

    def is_intact(self) -> bool:
        """Tell whether the files have their checksums; read them once."""
        if self.checksums is not None and list(map(_checksum, self.paths)) != self.checksums:
            return False
        self.checksums = None
        return True


def _write(prepared: Prepared, folder: Path) -> None:
    for name, array in zip(NAMES, prepared.arrays, strict=True):
        if isinstance(array, Path):
            _link(array, folder / f"{name}.npy")
            continue
        with open(folder / f"{name}.npy", "wb") as file:
            try:
                if sys.platform == "linux":  # NumPy does not say "disk full"
                    os.posix_fallocate(file.fileno(), 0, HEADER_BYTES + array.nbytes)
            except OSError as error:
                where = f"{folder.parent} (copy of {prepared.description.name})"
                raise OSError(error.errno, error.strerror, where) from error
            np.save(file, array)
            file.truncate()
    described = {
        "description": asdict(prepared.description),
        "remarks": prepared.remarks,
        "checksums": [_checksum(folder / f"{name}.npy") for name in NAMES],
    }
    text = json.dumps(described)
    (folder / DESCRIBED).write_text(f"{zlib.crc32(text.encode())}\n{text}")


def _link(file: Path, path: Path) -> None:
    """Let `path` be one more name of a file that this process holds open; copy it where that can't be."""
    try:
        os.link(os.path.realpath(file), path)
    except OSError:  # it has no name any more, or is on another disk
        shutil.copyfile(file, path)


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file; 4 GB/s, where SHA-256 has 1.8 (Zen 4)."""
    checksum, part = 0, memoryview(bytearray(2**20))
    with open(path, "rb", buffering=0) as file:
        while n := file.readinto(part):
            checksum = zlib.crc32(part[:n], checksum)
    return checksum


def _remove_others(folder: Path) -> None:
    """Remove the data sets beside a folder that are more than is kept. Files that are open stay readable."""
    others = []
    for other in folder.parent.iterdir():
        with suppress(OSError):
            files = [file.stat() for file in other.iterdir()]
            size = sum(file.st_size // file.st_nlink for file in files)  # of links, each its share
            others.append((other != folder, -other.stat().st_mtime_ns, size, other))
    total = 0
    for n, (is_other, _, size, other) in enumerate(sorted(others), start=1):
        total += size
        if is_other and (n > KEPT or total > KEPT_BYTES):
            shutil.rmtree(other, ignore_errors=True)


def _cache_folder() -> Path | None:
    """Return the cache folder, None if it can't be written."""
    folder = user_cache_path("lockstep")
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
