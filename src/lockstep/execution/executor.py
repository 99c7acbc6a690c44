"""Executors train tasks and report the events of their runs."""

from collections.abc import Callable, Sequence
from typing import Protocol

from lockstep.data.array_files import Source
from lockstep.execution import cluster, pool
from lockstep.execution.task import Report, Task
from lockstep.execution.workers import LocalWorkers


class Executor(Protocol):
    """Trains tasks: in this process, in workers of this machine, or in those of a cluster."""

    @property
    def is_free(self) -> bool:
        """Whether a task can be submitted."""

    def submit(self, task: Task) -> None:
        """Start a task; the executor must be free."""

    def wait(self, report: Report) -> list[Task]:
        """Report new events, and return the tasks that have ended, all of whose events are reported.

        Return when a task has ended, or after a short time. Errors of a run or a worker are reported as the
        end of the runs that they concern.

        Raises:
            OSError: if there is no room left to write to (see NO_ROOM).
        """

    def kill(self) -> None:
        """Stop all tasks at once."""


class InProcess:
    """An executor that trains in this process."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = {source.description.digest: source for source in sources}
        self._task: Task | None = None

    @property
    def is_free(self) -> bool:
        return self._task is None

    def submit(self, task: Task) -> None:
        self._task = task

    def wait(self, report: Report) -> list[Task]:
        from lockstep.data import datasets  # here, because these load torch
        from lockstep.execution.task_training import train_task

        assert self._task is not None
        task, self._task = self._task, None
        train_task(task, datasets.mapped(self._sources[task.digest].files()), report)
        return [task]

    def kill(self) -> None:
        pass  # the error that called for it has ended the task


def _executor(
    sources: Sequence[Source], n_workers: int, placed: Callable[[Sequence[int], str], object]
) -> Executor:
    if (of := cluster.connected()) is not None:
        from lockstep.execution.cluster_workers import ClusterWorkers  # here, because it loads Dask

        return ClusterWorkers(of, sources, placed)
    is_here = n_workers == 1 and not pool.is_started()
    return InProcess(sources) if is_here else LocalWorkers(sources, n_workers)


def carry_out(
    next_task: Callable[[], Task | None],
    sources: Sequence[Source],
    n_workers: int,
    report: Report,
    done: Callable[[Task], object] = lambda task: None,
    placed: Callable[[Sequence[int], str], object] = lambda numbers, machine: None,
) -> None:
    """Train arrays, and write each run's artifacts as soon as it leaves its array.

    Runs resume from their folders' checkpoints.

    Args:
        next_task: called when a worker is free. If it returns None, it is called again when a task has ended,
            and if no task is running, all is done.
        sources: the data sets of all tasks.
        n_workers: processes; one worker is this process, unless it leaves that to workers. A cluster has its
            own number.
        report: called here with a run's number and each event that its journal did not have yet.
        done: called after the last event of a task.
        placed: called with runs' numbers and the machine of a cluster that trains them.

    Raises:
        OSError: if there is no room left to write to (see NO_ROOM).
        ClusterLost: if a cluster's scheduler can't be reached any more.
    """
    executor = _executor(sources, n_workers, placed)
    under_way = 0
    try:
        while True:
            while executor.is_free and (task := next_task()):
                executor.submit(task)
                under_way += 1
            if not under_way:
                return
            for task in executor.wait(report):
                under_way -= 1
                done(task)
    except BaseException:
        executor.kill()
        raise
