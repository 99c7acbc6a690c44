"""Carries out tasks: an executor takes them as they come and tells what happens to their runs."""

from collections.abc import Callable, Sequence
from typing import Protocol

from lockstep.data.datasets import Dataset
from lockstep.execution.task import Task, Tell, train_task
from lockstep.execution.workers import LocalWorkers


class Executor(Protocol):
    """Trains tasks, in this process or in others."""

    @property
    def is_free(self) -> bool:
        """Whether it could begin another task at once."""

    def submit(self, task: Task) -> None:
        """Begin a task; only when free."""

    def wait(self, tell: Tell) -> list[Task]:
        """Tell what has happened to runs, and return the tasks that are over.

        Returns when a task is over, or soon. All was told of the runs of a task that is over. What goes wrong
        with a run or a worker is told as the end of the runs it concerns.

        Raises:
            OSError: if there is no room left to write to (see NO_ROOM).
        """

    def kill(self) -> None:
        """End what is under way, at once."""


class InProcess:
    """An executor that trains in this process."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._datasets = {dataset.description.digest: dataset for dataset in datasets}
        self._task: Task | None = None

    @property
    def is_free(self) -> bool:
        return self._task is None

    def submit(self, task: Task) -> None:
        self._task = task

    def wait(self, tell: Tell) -> list[Task]:
        assert self._task is not None
        task, self._task = self._task, None
        train_task(task, self._datasets[task.digest], tell)
        return [task]

    def kill(self) -> None:
        pass  # the error that asks for it has ended it


def carry_out(
    next_task: Callable[[], Task | None],
    datasets: Sequence[Dataset],
    n_workers: int,
    tell: Tell,
    done: Callable[[Task], object] = lambda task: None,
) -> None:
    """Train arrays, and write each run's artifacts as soon as it leaves its array.

    Runs resume from their folders' checkpoints.

    Args:
        next_task: called when a worker is free; returns its next task, or None if there is none just now.
            Then it is called again when a task is over; when none is under way, all is done.
        datasets: those of all tasks.
        n_workers: processes; with one, everything happens in this process.
        tell: called here, with a run's job and what happened to it: each epoch that its journal did not have
            yet, then its end.
        done: called when all was told of a task.

    Raises:
        OSError: if there is no room left to write to (see NO_ROOM).
    """
    executor: Executor = InProcess(datasets) if n_workers == 1 else LocalWorkers(datasets, n_workers)
    under_way = 0
    try:
        while True:
            while executor.is_free and (task := next_task()):
                executor.submit(task)
                under_way += 1
            if not under_way:
                return
            for task in executor.wait(tell):
                under_way -= 1
                done(task)
    except BaseException:
        executor.kill()
        raise
