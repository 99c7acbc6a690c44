"""Claims: locks on names that the kernel releases when their process ends, even if it is killed."""

import errno
import fcntl
import hashlib
import os
import shlex
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path

from lockstep.config.errors import Refused

FLOCK = "hhqqi4x"
"""Linux's `struct flock`: type, whence, start, length, process id."""


@cache  # closing a second descriptor of the file would release all claims
class Claims:
    """This process's claims on names, among all processes that use the same file.

    A claim is a POSIX lock on one byte of the file, at an offset computed from the name. One descriptor can
    hold thousands, and the kernel releases them when the process ends.

    Raises:
        Refused: if the file can't be opened for writing, as another user's can't.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            problem = (
                f"{error.filename}: {error.strerror}; this file shows other commands what this one works on"
            )
            with suppress(OSError, KeyError):  # it isn't there, or nobody of this machine's users owns it
                if isinstance(error, PermissionError):
                    problem += f"; user {path.owner()} can share it: chmod a+rw {shlex.quote(str(path))}"
            raise Refused([problem]) from error

    def take(self, name: str) -> bool:
        """Claim a name; tell whether this process has it, now or from before."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(name))
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        return True

    def wait_for(self, name: str) -> None:
        """Claim a name as soon as no other process has it."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _offset(name))

    def holder(self, name: str) -> int | None:
        """Return the id of another process that has claimed a name, None if there is none."""
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _offset(name), 1, 0)
        kind, *_, pid = struct.unpack(FLOCK, fcntl.fcntl(self._file, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else int(pid)

    def release(self, name: str) -> None:
        """Release a name."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(name))


def _offset(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
