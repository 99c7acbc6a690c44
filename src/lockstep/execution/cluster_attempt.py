"""What a worker of a Dask cluster does for commands. It runs in that worker's process, without torch.

`train` is the task that Dask runs: an attempt to train a command's task. It trains in worker processes of
this machine, in copies of the runs' folders. The command asks for `news` about once a second, and writes what
it gets to its own folders. A command that stops asking has died or is cut off: the attempt ends LEASE_SECONDS
later.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event as Flag

from distributed import get_worker
from platformdirs import user_cache_path

from lockstep._version import __version__
from lockstep.execution import cluster_data, pool
from lockstep.execution.cluster_machine import Machine, canaries
from lockstep.execution.task import Task, is_no_room, reason_of
from lockstep.execution.workers import LONGEST_POLL, LocalWorkers
from lockstep.recovery import copies
from lockstep.recovery.copies import Changes, Has
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import SHARED, RunFolder, kept_weights

LEASE_SECONDS = 5.0
"""How long an attempt goes on whose command does not ask for news."""

POLL_SECONDS = 0.02
"""The interval at which a call for news looks whether the attempt is over."""


@dataclass(frozen=True)
class Order:
    """A task that a command wants to have trained.

    Attributes:
        identity: of the attempt.
        folders: what the command's run folders have, by the run's number.
    """

    identity: str
    task: Task
    folders: Mapping[int, Changes]


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        ends: of runs whose journal may lack it, by number.
        reason: the error that ended it, or empty.
        is_no_room: whether it lacked room on a disk of this machine.
    """

    ends: Mapping[int, Ended]
    reason: str = ""
    is_no_room: bool = False


@dataclass(frozen=True)
class News:
    """What an attempt's runs have that the command lacks.

    Attributes:
        outcome: None while it trains; the last news has it.
    """

    runs: Mapping[int, Changes]
    outcome: Outcome | None = None


class _Abandoned(Exception):
    """The command has stopped asking for news."""


async def describe(precisions: Sequence[str]) -> Machine:
    """Return this machine, and start the process that forks the workers that train."""
    logging.getLogger("distributed.worker").addFilter(_is_worth_a_line)
    pool.start((*pool.TRAINING, *pool.DRAWING))  # by this thread, which lasts: the process ends with it
    host = socket.gethostname()
    torch, canaries = await asyncio.to_thread(_canaries, precisions)
    return Machine(host, f"{host}:{user_cache_path('lockstep')}", __version__, torch, canaries)


async def news(identity: str, has: Mapping[int, Has], seconds: float) -> News | None:
    """Return what is new of an attempt, after some seconds or once it is over; None if it has not begun.

    Args:
        has: what the command's folders have, by the run's number.
    """
    until = time.monotonic() + seconds
    while await stay(identity):
        attempt, is_late = _attempts.get(identity), time.monotonic() >= until
        if attempt is not None and (attempt.outcome is not None or is_late):
            return await asyncio.to_thread(attempt.news, has)
        if attempt is None and is_late:
            break
        await asyncio.sleep(POLL_SECONDS)
    return None


async def stay(identity: str) -> bool:
    """Go on with an attempt: its command is there. Tell whether it is here.

    A command that waits for long for the answer to `news`, which may be large, says so.
    """
    known: _Waiting | _Attempt | None = _attempts.get(identity) or _waiting.get(identity)
    if known is not None:
        known.asked_at = time.monotonic()
    return known is not None


async def receive(order: Order) -> None:
    """Keep an order until Dask starts `train`: folders may hold megabytes, which its scheduler would keep."""
    now = time.monotonic()
    for identity in [of for of, waiting in _waiting.items() if now - waiting.asked_at > LEASE_SECONDS]:
        del _waiting[identity]
    _waiting[order.identity] = _Waiting(order, now)


def train(identity: str) -> None:
    """Attempt to train a task, as Dask's task; return when the command has all of it, or is gone."""
    waiting = _waiting.pop(identity, None)
    if waiting is None:
        return
    with TemporaryDirectory(dir=get_worker().local_directory, prefix="lockstep-") as scratch:
        attempt = _Attempt(waiting.order, Path(scratch))
        _attempts[identity] = attempt
        try:
            attempt.carry_out()
        except _Abandoned:
            pass
        finally:
            del _attempts[identity]


@dataclass
class _Waiting:
    """An order that Dask has not started, and when its command last asked for news."""

    order: Order
    asked_at: float


class _Attempt:
    """An attempt: its runs' folders in a scratch folder, and how it ended.

    Attributes:
        asked_at: when the command asked last.
        outcome: None while it trains.
    """

    def __init__(self, order: Order, scratch: Path) -> None:
        shared = scratch / order.task.shared.parent.name / SHARED
        shared.mkdir(parents=True)
        runs = tuple(replace(run, folder=scratch / run.folder.name) for run in order.task.runs)
        self._task = replace(order.task, runs=runs, shared=shared)
        self._folders = {run.number: RunFolder(run.folder) for run in runs}
        self._roots = {run.number: roots(self._task, run.number) for run in runs}
        for number, folder in self._folders.items():
            folder.path.mkdir(exist_ok=True)
            copies.apply(folder, order.folders[number], self._roots[number])
        self._ends = dict[int, Ended]()
        self._has_all = Flag()
        self.asked_at = time.monotonic()
        self.outcome: Outcome | None = None

    def carry_out(self) -> None:
        """Train, then wait until the command has all of it.

        Raises:
            _Abandoned: if it stops asking.
        """
        try:
            self.outcome = self._trained()
        except _Abandoned:
            raise
        except Exception as error:
            self.outcome = Outcome(self._ends, reason_of(error), is_no_room(error))
        while not self._has_all.wait(0.5):
            self._check()

    def news(self, has: Mapping[int, Has]) -> News:
        """Return what the command lacks."""
        outcome = self.outcome  # first: once it is there, the folders have all
        found = News(
            {
                number: copies.changes(folder, has[number], self._roots[number])
                for number, folder in self._folders.items()
            },
            outcome,
        )
        if outcome is not None:
            self._has_all.set()
        return found

    def _trained(self) -> Outcome:
        # `news` reads the journals, too.
        executor = LocalWorkers([cluster_data.source(self._task.digest)], 1, self._check, LONGEST_POLL)
        try:
            executor.submit(self._task)
            while not executor.wait(self._report):
                pass
        except BaseException:
            executor.end()
            raise
        return Outcome(self._ends)

    def _report(self, number: int, event: Event) -> None:
        if isinstance(event, Ended):
            self._ends[number] = event

    def _check(self) -> None:
        if time.monotonic() - self.asked_at > LEASE_SECONDS:
            raise _Abandoned


def roots(task: Task, number: int) -> dict[str, Path]:
    """Return the folders of a run's files, see lockstep.recovery.copies."""
    run = next(run for run in task.runs if run.number == number)
    key = run.config.run_key(task.digest)
    return {"artifacts": RunFolder(run.folder).artifacts, "weights": kept_weights(task.shared, key)}


_waiting = dict[str, _Waiting]()  # by identity
_attempts = dict[str, _Attempt]()


def _canaries(precisions: Sequence[str]) -> tuple[str, dict[str, str]]:
    worker = pool.submit(canaries, precisions)
    found: tuple[str, dict[str, str]] = worker.result()
    return found


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Tell whether Dask's worker is to log a line: it would log each call for news."""
    return not (record.msg == "Run out-of-band function %r" and record.args == (news.__name__,))
