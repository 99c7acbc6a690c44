"""An executor that trains in worker processes of this machine.

Workers are processes because an array's step is many short operators: two threads of one process would
spend a third of their time handing Python's lock to each other. They map the data into their memory, and say
what they have done in the runs' journals, which this process reads.
"""

from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future

from loky import BrokenProcessPool

from lockstep.data.datasets import Dataset
from lockstep.execution import mapped, pool
from lockstep.execution.mapped import MappedDataset
from lockstep.execution.task import NO_ROOM, Task, Tell, reason_of, train_task
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import RunFolder
from lockstep.results.history import Epoch

POLL_SECONDS = 0.05
"""How often journals are looked at."""

ATTEMPTS = 3
"""How many workers a run may take with it, when it is alone, before it counts as failed."""


class LocalWorkers:
    """Worker processes, each of which trains one task at a time.

    When a worker dies, the tasks that were in the workers' hands are suspects: they go on one at a time, so
    that it shows which one kills workers, and by halves, down to the run that can't be trained.
    """

    def __init__(self, datasets: Sequence[Dataset], n: int) -> None:
        self._datasets = {dataset.description.digest: mapped.save(dataset) for dataset in datasets}
        self._n = n
        self._tasks = dict[Future[str], Task]()  # in the workers' hands
        self._runs = dict[int, _Followed]()  # of these tasks, those that are not over

    @property
    def is_free(self) -> bool:
        """Whether a worker is."""
        return len(self._tasks) < self._n

    def submit(self, task: Task) -> None:
        """Hand a task to a worker that is free."""
        for job, config, path in zip(task.jobs, task.configs, task.folders, strict=True):
            pauses = task.pause_at is not None and task.pause_at < config.trainer.epochs
            run = _Followed(RunFolder(path), task.pause_at if pauses else None)
            if not run.was_over:
                self._runs[job] = run
        self._hand(task)

    def wait(self, tell: Tell) -> list[Task]:
        """Tell what journals say, and return the tasks that are over, as soon as there are any."""
        over, suspects = self._poll(tell)
        for task in suspects:
            self._train_alone(self._rest_of(task), tell)
        return over + suspects

    def kill(self) -> None:
        """End the workers, whatever they are doing."""
        pool.shut_down(kill=True)

    def _hand(self, task: Task) -> None:
        try:
            future = pool.executor(self._n).submit(_train, task, self._datasets[task.digest])
        except BrokenProcessPool as error:  # a worker died while it had nothing to do
            future = Future()
            future.set_exception(error)
        self._tasks[future] = task

    def _poll(self, tell: Tell) -> tuple[list[Task], list[Task]]:
        """Tell what journals say; return the tasks that are over and, if a worker has died, all others."""
        ended, _ = futures.wait(self._tasks, POLL_SECONDS, futures.FIRST_COMPLETED)
        lost = {future for future in ended if isinstance(future.exception(), BrokenProcessPool)}
        if lost:
            pool.shut_down(kill=True)  # so that none of them writes any more
        for job, run in list(self._runs.items()):
            for event in run.journal.unread():
                self._hear(job, event, tell)
        over = []
        for future in ended - lost:
            reason = future.result()
            over.append(self._tasks.pop(future))
            for job in self._rest_of(over[-1]).jobs:
                self._hear(job, Ended(reason or "its worker did not finish"), tell)
        suspects = list(self._tasks.values()) if lost else []
        if lost:
            self._tasks.clear()
        return over, suspects

    def _train_alone(self, task: Task, tell: Tell) -> None:
        """Carry out a task that a worker may have died of, with no other beside it."""
        is_single = len(task.jobs) == 1
        for _ in range(ATTEMPTS if is_single else 1):
            if not task.jobs:
                return
            self._hand(task)
            while self._tasks:
                self._poll(tell)
            task = self._rest_of(task)
        if is_single and task.jobs:
            self._hear(task.jobs[0], Ended("its worker process died, as it does when memory runs out"), tell)
        elif task.jobs:
            n = len(task.jobs)
            half = -(-n // 2)
            for part in (range(half), range(half, n)):
                self._train_alone(task.of(part), tell)

    def _rest_of(self, task: Task) -> Task:
        """Return the runs of a task that are not over."""
        return task.of([k for k, job in enumerate(task.jobs) if job in self._runs])

    def _hear(self, job: int, event: Event, tell: Tell) -> None:
        if self._runs[job].is_over(event):
            del self._runs[job]
        tell(job, event)


class _Followed:
    """A run of a task in a worker's hands, and its journal from here on."""

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


def _train(task: Task, data: MappedDataset) -> str:
    """Train a task, in a worker; return why it was given up, or an empty text."""
    try:
        train_task(task, mapped.load(data), lambda job, event: None)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        return reason_of(error)
    return ""
