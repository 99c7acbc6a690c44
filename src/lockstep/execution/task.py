"""Runs that train as one array, and what may be told of them."""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lockstep.config.schema import RunConfig
from lockstep.recovery.journal import Event
from lockstep.training.network_code import NetworkCode

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk or a limit on file size, which fail the sweep, not a run."""

Report = Callable[[int, Event], object]


@dataclass(frozen=True)
class TaskRun:
    """A run of a task.

    Attributes:
        number: identifies the run in events.
        folder: see RunFolder.
    """

    number: int
    config: RunConfig
    name: str
    folder: Path


@dataclass(frozen=True)
class Task:
    """Runs to be trained as one array.

    Attributes:
        digest: the digest of the data set that they share.
        shared: folder of the pictures that all runs on a data set share.
        code: that their networks need.
        pause_at: the iterations after which runs stop with a checkpoint; None trains them to their end.
        rungs: see lockstep.training.loop.train.
    """

    runs: tuple[TaskRun, ...]
    digest: str
    shared: Path
    threads: int
    exact: bool
    code: tuple[NetworkCode, ...] = ()
    pause_at: int | None = None
    rungs: tuple[int, ...] = ()

    def of(self, runs: Iterable[TaskRun]) -> "Task":
        """Return the task of some of the runs."""
        return replace(self, runs=tuple(runs))


def is_no_room(error: BaseException) -> bool:
    """Tell whether an error is one of NO_ROOM."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


def reason_of(error: BaseException) -> str:
    """Return an error as one line."""
    first_line = (str(error).splitlines() or [""])[0]  # torch's errors continue with C++ stack frames
    return f"{type(error).__name__}: {first_line}"
