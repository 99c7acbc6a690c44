"""Temporary folders, also those that dead processes have left."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "lockstep-temporary-"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder, and delete it after the block, with those of processes that were killed.

    A process holds a lock on its folder, which the kernel releases when the process ends.
    """
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = _locked(path)
    if lock is None:  # another process has just found it without a lock
        shutil.rmtree(path, ignore_errors=True)
        with temporary_folder() as path:
            yield path
        return
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
        for left in path.parent.glob(f"{PREFIX}*"):
            if (free := _locked(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(free)


def _locked(path: Path) -> int | None:
    """Lock a folder; return the descriptor that holds the lock, None where another process has it."""
    with suppress(OSError):  # it is gone, or another user's
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None
