"""Carries out the arrays of a plan: in this process, or in worker processes that joblib keeps.

Workers are processes because an array's step is many short operators: two threads of one process would
spend a third of their time handing Python's lock to each other. They share the data in memory, and say what
they have done in the runs' journals, which the process that started them reads.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from joblib import delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from lockstep import pool
from lockstep.data import Dataset
from lockstep.journal import Ended, Event
from lockstep.task import NO_ROOM, Task, Tell, reason_of, train_task
from lockstep.unfinished import Folder

POLL_SECONDS = 0.05
"""How often journals are looked at."""

ATTEMPTS = 3
"""How many workers a run may take with it, when it is alone, before it counts as failed."""


def carry_out(tasks: Sequence[Task], datasets: Sequence[Dataset], n_workers: int, tell: Tell) -> None:
    """Train arrays, and write each run's artifacts as soon as it leaves its array.

    Runs go on from their folders' checkpoints. When a worker dies, the runs that were in the workers' hands
    go on one array at a time, so that it shows whose it was, and by halves, down to the run that can't be.

    Args:
        tasks: in the order in which workers take them up.
        datasets: each task's.
        n_workers: processes; with one, everything happens in this process.
        tell: called here, with a run's job and what became of it: each epoch that its journal did not have
            yet, then its end. No error of a run or of a worker gets out otherwise.

    Raises:
        OSError: where there is no room left to write to (see NO_ROOM).
    """
    if n_workers == 1:
        for task, dataset in zip(tasks, datasets, strict=True):
            train_task(task, dataset, tell)
        return
    _Workers(tasks, n_workers, tell).carry_out(list(zip(tasks, datasets, strict=True)))


_Pairs = list[tuple[Task, Dataset]]


class _Workers:
    """Worker processes at work on tasks, and what their runs' journals tell."""

    def __init__(self, tasks: Sequence[Task], n_workers: int, tell: Tell) -> None:
        self._n_workers, self._tell = n_workers, tell
        # Of the runs that have not ended.
        self._journals = {
            job: Folder(path).journal
            for task in tasks
            for job, path in zip(task.jobs, task.folders, strict=True)
        }
        for journal in self._journals.values():
            list(journal.unread())  # is known

    def carry_out(self, pairs: _Pairs) -> None:
        """Carry out all tasks, whatever becomes of workers."""
        while pairs:
            error = self._in_parallel(pairs)
            pairs = self._left_of(pairs)
            if not isinstance(error, TerminatedWorkerError):
                self._give_up(pairs, error)
                return
            for suspect in [pair for pair in pairs if pair[0].marker.exists()] or pairs[:1]:
                self._alone(suspect)
            pairs = self._left_of(pairs)

    def _alone(self, suspect: tuple[Task, Dataset]) -> None:
        """Carry out a task that a worker may have died of, with no other beside it."""
        for _ in range(ATTEMPTS if len(suspect[0].jobs) == 1 else 1):
            error = self._in_parallel([suspect])
            if not isinstance(error, TerminatedWorkerError):
                break
        for task, dataset in self._left_of([suspect]):
            if not isinstance(error, TerminatedWorkerError):
                self._give_up([(task, dataset)], error)
            elif len(task.jobs) == 1:
                self._hear(task.jobs[0], Ended("its worker process died, as it does when memory runs out"))
            else:
                half = len(task.jobs) // 2
                for part in (range(half), range(half, len(task.jobs))):
                    self._alone((task.of(part), dataset))

    def _left_of(self, pairs: _Pairs) -> _Pairs:
        """Tasks without the runs that have ended."""
        left = [
            (task.of([k for k, job in enumerate(task.jobs) if job in self._journals]), dataset)
            for task, dataset in pairs
        ]
        return [(task, dataset) for task, dataset in left if task.jobs]

    def _give_up(self, pairs: _Pairs, error: BaseException | None) -> None:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise error
        for task, _ in pairs:
            for job in task.jobs:
                self._hear(job, Ended(reason_of(error) if error else "its worker did not finish"))

    def _hear(self, job: int, event: Event) -> None:
        if isinstance(event, Ended):
            del self._journals[job]
        self._tell(job, event)

    def _read(self) -> None:
        for job, journal in list(self._journals.items()):
            for event in journal.unread():
                self._hear(job, event)

    def _in_parallel(self, pairs: _Pairs) -> BaseException | None:
        """Have workers carry out tasks while the journals are read; returns what went wrong with a worker."""
        work = _Work(pairs, self._n_workers)
        try:
            while work.is_alive():
                work.join(POLL_SECONDS)
                self._read()
        except BaseException:
            pool.kill()
            work.join()
            raise
        if work.error is not None:
            pool.kill()  # so that none of them writes any more
        self._read()
        return work.error


class _Work(threading.Thread):
    """joblib at work: it blocks until the last task is done, so it has a thread of its own."""

    def __init__(self, pairs: _Pairs, n_workers: int) -> None:
        super().__init__(daemon=True)
        shared = {id(dataset): _Shared(dataset) for _, dataset in pairs}
        self._calls = [delayed(_work)(task, shared[id(dataset)]) for task, dataset in pairs]
        self._n_workers = n_workers
        self._threads = max(task.threads for task, _ in pairs)
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            with pool.workers(self._n_workers, self._threads) as call:
                call(self._calls)
        except BaseException as error:
            self.error = error


class _Shared:
    """A data set as NumPy arrays, which joblib puts in shared memory once, however many tasks use it."""

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


def _work(task: Task, shared: _Shared) -> None:
    """A task in a worker process."""
    task.marker.write_text(str(os.getpid()))
    train_task(task, shared.dataset(), lambda job, event: None)
    task.marker.unlink()
