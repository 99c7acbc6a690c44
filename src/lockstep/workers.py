"""Carries out the arrays of a plan: in this process, or in worker processes that joblib keeps.

Workers are processes because an array's step is many short operators: two threads of one process would
spend a third of their time handing Python's lock to each other. They share the data in memory, and say what
they have done by appending to a journal file each, which the process that started them reads.
"""

import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import delayed

from lockstep import pool
from lockstep.config import RunConfig
from lockstep.data import Dataset
from lockstep.train import Epoch, TrainedRun, train

POLL_SECONDS = 0.05
"""How often journals are looked at."""

WATCH_SECONDS = 1.0
"""How often a worker looks whether the process that started it is still there."""


@dataclass(frozen=True)
class Ended:
    """A run has left its array and its artifacts are written; or it failed, `reason` and `trace` say why."""

    reason: str = ""
    trace: str = ""


Event = Epoch | Ended
Tell = Callable[[int, Event], object]


@dataclass(frozen=True)
class Task:
    """Runs to be trained as one array.

    Attributes:
        jobs: what the runs are called in events.
        configs, names: theirs.
        folders: where each run's artifacts are written.
        shared: where what is the same for all runs on a data set is drawn.
    """

    jobs: tuple[int, ...]
    configs: tuple[RunConfig, ...]
    names: tuple[str, ...]
    folders: tuple[Path, ...]
    shared: Path
    threads: int
    exact: bool


def carry_out(tasks: Sequence[Task], datasets: Sequence[Dataset], n_workers: int, tell: Tell) -> None:
    """Train arrays, and write each run's artifacts as soon as it leaves its array.

    Args:
        tasks: in the order in which workers take them up.
        datasets: each task's.
        n_workers: processes; with one, everything happens in this process.
        tell: called here, with a run's job and what became of it: each of its epochs, then its end. No error
            of a run or of a worker gets out otherwise.
    """
    if n_workers == 1:
        for task, dataset in zip(tasks, datasets, strict=True):
            _train(task, dataset, tell)
        return
    unfinished = {job for task in tasks for job in task.jobs}

    def heard(job: int, event: Event) -> None:
        if isinstance(event, Ended):
            unfinished.discard(job)
        tell(job, event)

    with tempfile.TemporaryDirectory(prefix="lockstep-journals-") as folder:
        journals = [Path(folder) / f"{index}" for index in range(len(tasks))]
        readers = [_Reader(journal) for journal in journals]
        work = _Work(tasks, datasets, journals, n_workers)
        try:
            while work.is_alive():
                work.join(POLL_SECONDS)
                for reader in readers:
                    reader.read(heard)
        except BaseException:
            pool.kill()
            work.join()
            raise
        for reader in readers:
            reader.read(heard)
    for job in sorted(unfinished):
        tell(job, Ended(_reason(work.error) if work.error else "its worker did not finish"))


def _train(task: Task, dataset: Dataset, tell: Tell) -> None:
    from lockstep import artifacts  # here, as only a process that trains needs all that draws

    ended: set[int] = set()

    def after_epoch(k: int, run: TrainedRun, epoch: Epoch) -> None:
        tell(task.jobs[k], epoch)
        if run.ended:
            end = Ended()
            try:
                artifacts.write_run(run, task.folders[k])
                if run.config.tracking.pictures == "all":
                    artifacts.draw_run(run, dataset, task.names[k], task.folders[k], task.shared)
            except Exception as error:
                end = Ended(_reason(error), traceback.format_exc())
            ended.add(k)
            tell(task.jobs[k], end)

    try:
        train(task.configs, dataset, after_epoch, task.threads, task.exact)
    except Exception as error:
        for k in set(range(len(task.jobs))) - ended:
            tell(task.jobs[k], Ended(_reason(error), traceback.format_exc()))


def _reason(error: BaseException) -> str:
    first_line = (str(error).splitlines() or [""])[0]  # torch's errors go on with frames of C++
    return f"{type(error).__name__}: {first_line}"


class _Work(threading.Thread):
    """joblib at work: it blocks until the last task is done, so it has a thread of its own."""

    def __init__(
        self, tasks: Sequence[Task], datasets: Sequence[Dataset], journals: Sequence[Path], n_workers: int
    ) -> None:
        super().__init__(daemon=True)
        shared = {id(dataset): _Shared(dataset) for dataset in datasets}
        self._calls = [
            delayed(_work)(task, shared[id(dataset)], journal, os.getpid())
            for task, dataset, journal in zip(tasks, datasets, journals, strict=True)
        ]
        self._n_workers = n_workers
        self._threads = max(task.threads for task in tasks)
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


def _work(task: Task, shared: _Shared, journal: Path, parent: int) -> None:
    """A task in a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    if os.getppid() == parent:  # not so where joblib's backend is another than its own
        _end_with(parent)
    with journal.open("ab", buffering=0) as file:
        _train(task, shared.dataset(), lambda job, event: file.write(_entry(job, event)))


@cache
def _end_with(parent: int) -> None:
    """Let this process end soon after its parent, however that ends: nobody is left to train for."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _entry(job: int, event: Event) -> bytes:
    body = pickle.dumps((job, event))
    return len(body).to_bytes(8) + body


class _Reader:
    """Reads a journal while it is written."""

    def __init__(self, journal: Path) -> None:
        journal.touch()
        self._journal, self._read = journal, 0

    def read(self, heard: Tell) -> None:
        """Hand on every entry that is complete by now."""
        if self._journal.stat().st_size == self._read:
            return
        with self._journal.open("rb") as file:
            file.seek(self._read)
            unread = file.read()
        while len(unread) >= 8 and len(unread) >= (end := 8 + int.from_bytes(unread[:8])):
            job, event = pickle.loads(unread[8:end])
            unread = unread[end:]
            self._read += end
            heard(job, event)
