"""Carries out tasks as they come: in this process, or in worker processes that joblib keeps.

Workers are processes because an array's step is many short operators: two threads of one process would
spend a third of their time handing Python's lock to each other. They share the data in memory, are handed a
task whenever they are free, and say what they have done in the runs' journals, which this process reads.
"""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from multiprocessing.connection import Client, Connection, wait
from typing import Any

import numpy as np
import torch
from joblib import delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from lockstep.data.datasets import Dataset
from lockstep.execution import pool
from lockstep.execution.task import NO_ROOM, Task, Tell, reason_of, train_task
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import RunFolder
from lockstep.results.history import Epoch

POLL_SECONDS = 0.05
"""How often journals are looked at."""

ATTEMPTS = 3
"""How many workers a run may take with it, when it is alone, before it counts as failed."""

HELLO_SECONDS = 1.0
"""How long whoever connects may take to say that it is a worker."""

Next = Callable[[], Task | None]


def carry_out(
    next_task: Next,
    datasets: Sequence[Dataset],
    n_workers: int,
    tell: Tell,
    done: Callable[[Task], object] = lambda task: None,
    threads: int = 1,
) -> None:
    """Train arrays, and write each run's artifacts as soon as it leaves its array.

    Runs go on from their folders' checkpoints. When a worker dies, the tasks that were in the workers' hands
    go on one at a time, so that it shows whose it was, and by halves, down to the run that can't be.

    Args:
        next_task: called when a worker is free: what it is to do. None for nothing just now; it is called
            again when a task is done, and when none is in hand, all is done.
        datasets: those of all tasks.
        n_workers: processes; with one, everything happens in this process.
        tell: called here, with a run's job and what became of it: each epoch that its journal did not have
            yet, then its end. No error of a run or of a worker gets out otherwise.
        done: called when all was told of a task.
        threads: intra-op threads of each worker.

    Raises:
        OSError: where there is no room left to write to (see NO_ROOM).
    """
    of_digest = {dataset.description.digest: dataset for dataset in datasets}
    if n_workers > 1:
        _Workers(of_digest, n_workers, threads, tell, done).carry_out(next_task)
        return
    while task := next_task():
        train_task(task, of_digest[task.digest], tell)
        done(task)


class _Workers:
    """Worker processes at work on tasks, and what their runs' journals tell."""

    def __init__(
        self,
        datasets: dict[str, Dataset],
        n_workers: int,
        threads: int,
        tell: Tell,
        done: Callable[[Task], object],
    ) -> None:
        self._shared = {digest: _Shared(dataset) for digest, dataset in datasets.items()}
        self._n_workers, self._threads = n_workers, threads
        self._tell, self._done = tell, done
        self._runs: dict[int, _Followed] = {}  # of tasks in hand, those that are not done
        self._in_hand: list[Task] = []

    def carry_out(self, next_task: Next) -> None:
        """Carry out all tasks, whatever becomes of workers."""
        while not self._in_parallel(next_task, self._done):
            suspects, self._in_hand = self._in_hand, []
            for task in suspects:
                self._alone(task)
                self._done(task)

    def _alone(self, task: Task) -> None:
        """Carry out what is left of a task that a worker may have died of, with no other beside it."""
        task = task.of([k for k, job in enumerate(task.jobs) if job in self._runs])
        for _ in range(ATTEMPTS if len(task.jobs) == 1 else 1):
            one = iter([task] if task.jobs else [])
            if self._in_parallel(lambda one=one: next(one, None), lambda task: None):  # type: ignore[misc]
                return
            self._in_hand = []
        left = [k for k, job in enumerate(task.jobs) if job in self._runs]
        if len(task.jobs) == 1 and left:
            self._hear(task.jobs[0], Ended("its worker process died, as it does when memory runs out"))
            return
        half = -(-len(left) // 2)
        for part in (left[:half], left[half:]):
            self._alone(task.of(part))

    def _in_parallel(self, next_task: Next, done: Callable[[Task], object]) -> bool:
        """Have workers carry out tasks while journals are read; False when a worker has died."""
        lanes = _Lanes(self._shared, self._n_workers, self._threads)
        try:
            while True:
                while lanes.free and (task := next_task()):
                    self._take(task)
                    lanes.hand(task)
                if not self._in_hand and lanes.free:
                    lanes.end()
                    return True
                finished = lanes.finished(POLL_SECONDS)
                self._read()
                for task, trouble in finished:
                    self._in_hand.remove(task)
                    self._give_up(task, trouble)
                    done(task)
                if lanes.have_died:
                    pool.kill()  # so that none of them writes any more
                    lanes.end()
                    self._read()
                    return False
        except BaseException:
            pool.kill()
            lanes.end()
            raise

    def _take(self, task: Task) -> None:
        self._in_hand.append(task)
        for job, config, path in zip(task.jobs, task.configs, task.folders, strict=True):
            pauses = task.pause_at is not None and task.pause_at < config.trainer.epochs
            run = _Followed(RunFolder(path), task.pause_at if pauses else None)
            if not run.was_over:
                self._runs[job] = run

    def _give_up(self, task: Task, trouble: "_Trouble | None") -> None:
        """Runs of a task whose worker is done with it, that have not come to their end."""
        left = [job for job in task.jobs if job in self._runs]
        if trouble is not None and trouble.no_room is not None:
            raise trouble.no_room
        for job in left:
            self._hear(job, Ended(trouble.reason if trouble else "its worker did not finish"))

    def _hear(self, job: int, event: Event) -> None:
        if self._runs[job].is_over(event):
            del self._runs[job]
        self._tell(job, event)

    def _read(self) -> None:
        for job, run in list(self._runs.items()):
            for event in run.journal.unread():
                self._hear(job, event)


class _Followed:
    """A run of a task in hand, and its journal from here on."""

    def __init__(self, folder: RunFolder, pause_at: int | None) -> None:
        self.journal, self._left = folder.journal, pause_at
        # A kill may have come when all was done but to say so.
        self.was_over = any([self.is_over(event) for event in self.journal.unread()])

    def is_over(self, event: Event) -> bool:
        """Whether the task is done with the run after this event, its next one."""
        if isinstance(event, Epoch):
            if event.diverged:
                return False  # its end is to follow
            if self._left is not None:
                self._left -= 1
        return isinstance(event, Ended) or self._left == 0


@dataclass(frozen=True)
class _Trouble:
    """Why a worker gave a task up."""

    reason: str
    no_room: OSError | None


class _Lane:
    """The way to a worker, which does one task at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.task: Task | None = None

    def hand(self, task: Task | None) -> None:
        """Hand it a task; None ends it."""
        self.task = task
        with suppress(OSError):  # where it is dead, that shows soon
            self.connection.send(task)


class _Lanes:
    """n workers that serve until they are told to end; each is free once it has called in.

    joblib's call blocks until then, so it has a thread of its own.
    """

    def __init__(self, shared: dict[str, "_Shared"], n: int, threads: int) -> None:
        self.free: list[_Lane] = []
        self._busy: list[_Lane] = []
        self._key = os.urandom(32)
        self._server = socket.create_server(("127.0.0.1", 0), backlog=n)
        self._calls = [delayed(_serve)(self._server.getsockname(), self._key, shared)] * n
        self._n, self._threads = n, threads
        self._error: BaseException | None = None
        self._lost = False
        self._serving = threading.Thread(target=self._call, daemon=True)
        self._serving.start()

    def _call(self) -> None:
        try:
            with pool.workers(self._n, self._threads) as call:
                call(self._calls)
        except BaseException as error:
            self._error = error

    @property
    def have_died(self) -> bool:
        """Whether a worker has, which ends them all.

        Raises:
            What else ended them.
        """
        if self._error is not None and not isinstance(self._error, TerminatedWorkerError):
            raise self._error
        return self._lost or not self._serving.is_alive()

    def hand(self, task: Task) -> None:
        """Hand a task to a worker that is free."""
        lane = self.free.pop()
        lane.hand(task)
        self._busy.append(lane)

    def finished(self, timeout: float) -> list[tuple[Task, "_Trouble | None"]]:
        """Tasks that workers are done with, as soon as there are any, and what went wrong."""
        finished = []
        ready = wait([self._server, *(lane.connection for lane in self._busy)], timeout)
        if self._server in ready:
            self._accept()
        for lane in [lane for lane in self._busy if lane.connection in ready]:
            try:
                trouble = lane.connection.recv()
            except (EOFError, OSError):
                self._lost = True
                continue
            assert lane.task is not None
            finished.append((lane.task, trouble))
            self._busy.remove(lane)
            self.free.append(lane)
        return finished

    def _accept(self) -> None:
        accepted, _ = self._server.accept()
        connection = Connection(accepted.detach())
        if connection.poll(HELLO_SECONDS) and connection.recv_bytes(len(self._key)) == self._key:
            self.free.append(_Lane(connection))
        else:  # a stranger's
            connection.close()

    def end(self) -> None:
        """Return when no worker serves any more."""
        self._server.close()
        for lane in (*self.free, *self._busy):
            lane.hand(None)
        self._serving.join()
        for lane in (*self.free, *self._busy):
            lane.connection.close()


class _Shared:
    """A data set as NumPy arrays, which joblib puts in shared memory once, however many workers use it."""

    def __init__(self, dataset: Dataset) -> None:
        values = {field.name: getattr(dataset, field.name) for field in fields(dataset)}
        self._values = {
            name: value.numpy() if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }

    def dataset(self) -> Dataset:
        values: dict[str, Any] = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in self._values.items()
        }
        return Dataset(**values)


def _serve(address: tuple[str, int], key: bytes, shared: dict[str, _Shared]) -> None:
    """A worker process: does the tasks that it is handed, until there are none."""
    datasets = {digest: dataset.dataset() for digest, dataset in shared.items()}
    with suppress(EOFError, OSError), Client(address) as connection:  # the other side may be gone
        connection.send_bytes(key)
        while (task := connection.recv()) is not None:
            connection.send(_trouble_with(task, datasets[task.digest]))


def _trouble_with(task: Task, dataset: Dataset) -> _Trouble | None:
    try:
        train_task(task, dataset, lambda job, event: None)
    except Exception as error:
        no_room = error if isinstance(error, OSError) and error.errno in NO_ROOM else None
        return _Trouble(reason_of(error), no_room)
    return None
