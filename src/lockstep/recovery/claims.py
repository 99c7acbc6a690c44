"""Claims: locks on names that the kernel releases when their process ends, even if it is killed."""

import errno
import fcntl
import hashlib
import logging
import os
import shlex
import struct
import time
from contextlib import suppress
from pathlib import Path

from lockstep.config.errors import Refused

FLOCK = "hhqqi4x"
"""Linux's `struct flock`: type, whence, start, length, process id."""

_files: dict[Path, int] = {}
"""The descriptor of each file of claims: closing a second one would release all claims in it."""

SAY_SECONDS = 2.0
"""How long another process is waited for without a message. A killed command's workers end in 0.2 s."""

log = logging.getLogger("lockstep")


class Claims:
    """This process's claims on names, among all processes that use the same file.

    A claim is a POSIX lock on one byte of the file, at an offset computed from the name. One descriptor can
    hold thousands, and the kernel releases them when the process ends.

    Raises:
        Refused: if the file can't be opened for writing, as another user's can't.
    """

    def __init__(self, path: Path) -> None:
        try:
            if path not in _files:
                path.parent.mkdir(parents=True, exist_ok=True)
                _files[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _refused(path, error) from error
        self._file = _files[path]

    def take(self, name: str) -> bool:
        """Claim a name; tell whether this process has it, now or from before."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(name))
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        return True

    def wait_for(self, name: str, what: str) -> None:
        """Claim a name as soon as no other process has it.

        Args:
            what: what the other process has, for a message if it takes long.
        """
        say_at = time.monotonic() + SAY_SECONDS
        while not self.take(name):
            if time.monotonic() < say_at:
                time.sleep(0.02)
            elif (pid := self.holder(name)) is not None:
                log.warning("waiting for %s, which %s", process(pid), what)
                fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _offset(name))

    def holder(self, name: str) -> int | None:
        """Return the id of another process that has claimed a name, None if there is none."""
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, _offset(name), 1, 0)
        kind, *_, pid = struct.unpack(FLOCK, fcntl.fcntl(self._file, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else int(pid)

    def release(self, name: str) -> None:
        """Release a name."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _offset(name))


def release_all() -> None:
    """Release all claims of this process, which goes on: other processes may resume what it has left."""
    while _files:
        os.close(_files.popitem()[1])


def process(pid: int) -> str:
    """Describe a process, for a message: its id, and how to end it if it is stopped."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt":
            return f"process {pid}, which is stopped (continue it: kill -CONT {pid}; end it: kill -9 {pid})"
    return f"process {pid}"


def check(path: Path) -> None:
    """Check that `Claims` can open or make its file; make nothing.

    Raises:
        Refused: if it can't.
    """
    there = next(place for place in (path, *path.parents) if os.path.exists(place))
    wanted, number, where = os.R_OK | os.W_OK, 0, path
    if there != path:
        wanted = os.W_OK | os.X_OK
        if not there.is_dir():
            number, where = errno.EEXIST, there
    elif path.is_dir():
        number = errno.EISDIR
    if not number and not os.access(there, wanted, effective_ids=True):
        number = errno.EACCES
    if number:
        raise _refused(path, OSError(number, os.strerror(number), str(where)))


def _refused(path: Path, error: OSError) -> Refused:
    problem = f"{error.filename}: {error.strerror}; this file shows other commands what this one works on"
    with suppress(OSError, KeyError):  # it isn't there, or nobody of this machine's users owns it
        if isinstance(error, PermissionError):
            problem += f"; user {path.owner()} can share it: chmod a+rw {shlex.quote(str(path))}"
    return Refused([problem])


def _offset(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
