"""Who works on what: claims that end with the process that took them, however it ends."""

import fcntl
import hashlib
import os
from functools import cache
from pathlib import Path


@cache  # closing a second descriptor of the file would let go of all claims
class Claims:
    """Claims of this process on names, among all processes that use the same file.

    A claim is a POSIX lock on one byte of the file, at an offset that stands for the name: there may be
    thousands on one descriptor, and the kernel lets go of them when the process ends.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def take(self, name: str) -> bool:
        """Whether the name is this process's now, or was already."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(name))
        except (BlockingIOError, PermissionError):  # as POSIX has it, either
            return False
        return True

    def wait_for(self, name: str) -> None:
        """Take the name as soon as no other process has it."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _offset(name))

    def release(self, name: str) -> None:
        """Leave the name to others."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(name))


def _offset(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
