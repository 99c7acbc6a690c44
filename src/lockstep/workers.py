"""Carries out the arrays of a plan: in this process, or in worker processes that joblib keeps.

Workers are processes because an array's step is many short operators: two threads of one process would
spend a third of their time handing Python's lock to each other. They share the data in memory, and say what
they have done in the runs' journals, which the process that started them reads.
"""

import errno
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from lockstep import pool
from lockstep.config import RunConfig
from lockstep.data import Dataset
from lockstep.journal import Ended, Event
from lockstep.train import Checkpoint, Epoch, TrainedRun, train
from lockstep.unfinished import Folder

POLL_SECONDS = 0.05
"""How often journals are looked at."""

ATTEMPTS = 3
"""How many workers a run may take with it, when it is alone, before it counts as failed."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk, or a limit on files, is called: it fails the sweep, not a run."""

Tell = Callable[[int, Event], object]


@dataclass(frozen=True)
class Task:
    """Runs to be trained as one array.

    Attributes:
        jobs: what the runs are called in events.
        configs, names: theirs.
        folders: each run's, see Folder.
        shared: where what is the same for all runs on a data set is drawn.
        marker: a file that is there, with its process id, while a worker is at it.
    """

    jobs: tuple[int, ...]
    configs: tuple[RunConfig, ...]
    names: tuple[str, ...]
    folders: tuple[Path, ...]
    shared: Path
    marker: Path
    threads: int
    exact: bool

    def of(self, which: Sequence[int]) -> "Task":
        """Some of the runs, by position."""
        return replace(
            self,
            jobs=tuple(self.jobs[k] for k in which),
            configs=tuple(self.configs[k] for k in which),
            names=tuple(self.names[k] for k in which),
            folders=tuple(self.folders[k] for k in which),
        )


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
            _train(task, dataset, tell)
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
                self._hear(job, Ended(_reason(error) if error else "its worker did not finish"))

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


def _train(task: Task, dataset: Dataset, tell: Tell) -> None:
    """Train runs, those that go on after the same number of epochs together."""
    with ExitStack() as stack:
        for path in task.folders:
            stack.enter_context(Folder(path).in_training())
        _train_alone(task, dataset, tell)


def _train_alone(task: Task, dataset: Dataset, tell: Tell) -> None:
    folders = [Folder(path) for path in task.folders]
    for folder in folders:
        folder.journal.mend()
    checkpoints = [folder.checkpoint() for folder in folders]
    done = [checkpoint.history.epochs if checkpoint else 0 for checkpoint in checkpoints]
    order = sorted(range(len(done)), key=done.__getitem__)
    for _, which in groupby(order, key=done.__getitem__):
        together = list(which)
        _train_together(task.of(together), [checkpoints[k] for k in together], dataset, tell)


def _train_together(
    task: Task, checkpoints: Sequence[Checkpoint | None], dataset: Dataset, tell: Tell
) -> None:
    runs = [
        _Written(folder, job, tell) for folder, job in zip(map(Folder, task.folders), task.jobs, strict=True)
    ]

    def after_epoch(k: int, run: TrainedRun, epoch: Epoch) -> None:
        runs[k].add(run, epoch)
        if run.ended:
            runs[k].end(run, dataset, task.names[k], task.shared)

    try:
        train(task.configs, dataset, after_epoch, task.threads, task.exact, checkpoints)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        left = [k for k, run in enumerate(runs) if not run.ended]
        if _is_out_of_memory(error) and len(left) > 1:
            half = len(left) // 2
            for part in (left[:half], left[half:]):
                _train_alone(task.of(part), dataset, tell)
            return
        for k in left:
            runs[k].tell(Ended(_reason(error), traceback.format_exc()))


class _Written:
    """A run on its way into its folder."""

    def __init__(self, folder: Folder, job: int, tell: Tell) -> None:
        self._folder, self._job, self._tell = folder, job, tell
        self._journaled = len(folder.history()[0].marks)
        self._saved_at = time.monotonic()
        self.ended = False

    def tell(self, event: Event) -> None:
        """Into the journal first, then to whom it concerns."""
        self._folder.journal.append(event)
        self.ended = isinstance(event, Ended)
        self._tell(self._job, event)

    def add(self, run: TrainedRun, epoch: Epoch) -> None:
        """An epoch, if it isn't one that was trained again to get back to where the journal ends."""
        if len(run.history.marks) > self._journaled:
            self.tell(epoch)
        if not run.ended and time.monotonic() - self._saved_at >= run.config.trainer.checkpoint_seconds:
            self._folder.save(run.history.epochs, run.state())
            self._saved_at = time.monotonic()

    def end(self, run: TrainedRun, dataset: Dataset, name: str, shared: Path) -> None:
        """Its artifacts, then its end."""
        from lockstep import artifacts  # here, as only a process that trains needs all that draws

        end = Ended()
        try:
            shutil.rmtree(self._folder.artifacts, ignore_errors=True)
            self._folder.artifacts.mkdir()
            artifacts.write_run(run, self._folder.artifacts)
            if run.config.tracking.pictures == "all":
                artifacts.draw_run(run, dataset, name, self._folder.artifacts, shared)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            end = Ended(_reason(error), traceback.format_exc())
        self.tell(end)


def _reason(error: BaseException) -> str:
    first_line = (str(error).splitlines() or [""])[0]  # torch's errors go on with frames of C++
    return f"{type(error).__name__}: {first_line}"


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


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
    _train(task, shared.dataset(), lambda job, event: None)
    task.marker.unlink()
