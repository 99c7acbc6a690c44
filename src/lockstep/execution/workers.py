"""An executor that trains in worker processes of this machine.

Workers are processes because an array's step is many short operators: two threads of one process would
spend a third of their time handing Python's lock to each other. They map the data into their memory, and
write events to the runs' journals, which this process reads.
"""

from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future

from loky import BrokenProcessPool

from lockstep.data.datasets import Dataset
from lockstep.execution import mapped, pool
from lockstep.execution.mapped import MappedDataset
from lockstep.execution.task import NO_ROOM, Report, Task, reason_of, train_task
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import RunFolder
from lockstep.results.history import Epoch

POLL_SECONDS = 0.05
"""The time between two looks at the journals."""

ATTEMPTS = 3
"""The number of workers that may die of a run before the run is FAILED."""


class LocalWorkers:
    """Worker processes, each of which trains one task at a time.

    When a worker dies, any running task may be the cause. They are resumed one at a time, and the task that
    kills workers by halves, down to the run that can't be trained.
    """

    def __init__(self, datasets: Sequence[Dataset], n: int) -> None:
        self._datasets = {dataset.description.digest: mapped.save(dataset) for dataset in datasets}
        self._n = n
        self._tasks = dict[Future[str], Task]()  # that workers train
        self._runs = dict[int, _Followed]()  # their runs that have not ended

    @property
    def is_free(self) -> bool:
        """Whether a worker is free."""
        return len(self._tasks) < self._n

    def submit(self, task: Task) -> None:
        """Give a task to a free worker."""
        for run in task.runs:
            pauses = task.pause_at is not None and task.pause_at < run.config.trainer.epochs
            followed = _Followed(RunFolder(run.folder), task.pause_at if pauses else None)
            if not followed.was_over:
                self._runs[run.number] = followed
        self._hand(task)

    def wait(self, report: Report) -> list[Task]:
        """Report new events of the journals, and return the tasks that have ended."""
        over, suspects = self._poll(report)
        for task in suspects:
            self._train_alone(self._rest_of(task), report)
        return over + suspects

    def kill(self) -> None:
        """Kill the workers."""
        pool.shut_down(kill=True)

    def _hand(self, task: Task) -> None:
        try:
            future = pool.executor(self._n).submit(_train, task, self._datasets[task.digest])
        except BrokenProcessPool as error:  # an idle worker has died
            future = Future()
            future.set_exception(error)
        self._tasks[future] = task

    def _poll(self, report: Report) -> tuple[list[Task], list[Task]]:
        """Report new events; return the tasks that have ended and, if a worker has died, all others."""
        ended, _ = futures.wait(self._tasks, POLL_SECONDS, futures.FIRST_COMPLETED)
        lost = {future for future in ended if isinstance(future.exception(), BrokenProcessPool)}
        if lost:
            pool.shut_down(kill=True)  # so that none of them writes any more
        for number, followed in list(self._runs.items()):
            for event in followed.journal.unread():
                self._receive(number, event, report)
        over = []
        for future in ended - lost:
            reason = future.result()
            over.append(self._tasks.pop(future))
            for run in self._rest_of(over[-1]).runs:
                self._receive(run.number, Ended(reason or "its worker did not finish"), report)
        suspects = list(self._tasks.values()) if lost else []
        if lost:
            self._tasks.clear()
        return over, suspects

    def _train_alone(self, task: Task, report: Report) -> None:
        """Train a task that a worker may have died of, alone."""
        is_single = len(task.runs) == 1
        for _ in range(ATTEMPTS if is_single else 1):
            if not task.runs:
                return
            self._hand(task)
            while self._tasks:
                self._poll(report)
            task = self._rest_of(task)
        if is_single and task.runs:
            died = Ended("its worker process died, as it does when memory runs out")
            self._receive(task.runs[0].number, died, report)
        elif task.runs:
            half = -(-len(task.runs) // 2)
            for part in (task.runs[:half], task.runs[half:]):
                self._train_alone(task.of(part), report)

    def _rest_of(self, task: Task) -> Task:
        """Return the task of the runs that have not ended."""
        return task.of(run for run in task.runs if run.number in self._runs)

    def _receive(self, number: int, event: Event, report: Report) -> None:
        if self._runs[number].is_over(event):
            del self._runs[number]
        report(number, event)


class _Followed:
    """A run that a worker trains, and the new events of its journal."""

    def __init__(self, folder: RunFolder, pause_at: int | None) -> None:
        self.journal, self._left = folder.journal, pause_at
        # A kill may have come between the last event and its report.
        self.was_over = any([self.is_over(event) for event in self.journal.unread()])

    def is_over(self, event: Event) -> bool:
        """Tell whether the run has ended or paused with this event."""
        if isinstance(event, Epoch):
            if event.diverged:
                return False  # its end follows
            if self._left is not None:
                self._left -= 1
        return isinstance(event, Ended) or self._left == 0


def _train(task: Task, data: MappedDataset) -> str:
    """Train a task, in a worker; return the error that ended it, or an empty text."""
    try:
        train_task(task, mapped.load(data), lambda number, event: None)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        return reason_of(error)
    return ""
