"""An executor that trains in worker processes of this machine.

Workers are processes because an array's step is many short operators: two threads of one process would
spend a third of their time handing Python's lock to each other. They map the data into their memory, and
write events to the runs' journals, which this process reads.
"""

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from lockstep.data.array_files import ArrayFiles, Source
from lockstep.execution import pool
from lockstep.execution.pool import Worker, WorkerDied
from lockstep.execution.task import Report, Task, TaskRun, is_no_room, reason_of
from lockstep.recovery import claims
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import RunFolder
from lockstep.results.early_stopping import has_ended
from lockstep.results.history import History

POLL_SECONDS, LONGEST_POLL = 0.05, 0.5
"""The least and the most time between two looks at the journals; the end of a task is noticed at once."""

POLL_SHARE = 0.1
"""The share of the time that these looks may take: of thousands of journals, each takes 20 ms."""

ATTEMPTS = 3
"""The number of workers that may die of a run before the run is FAILED."""


class LocalWorkers:
    """Worker processes, each of which trains one task at a time.

    When a worker dies, its task is resumed once no other one runs, as memory may have run out. A task that
    kills workers is trained by halves, down to the run that can't be trained.

    Args:
        check: called between two looks at the journals; what it raises ends the call of `wait`.
        poll_seconds: the least time between two looks.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        n: int,
        check: Callable[[], object] = lambda: None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._files = {source.description.digest: source.files() for source in sources}
        self._n, self._check = n, check
        self._tasks = dict[Worker, Task]()  # that workers train
        self._lost = list[Task]()  # whose workers died
        self._runs = dict[int, Followed]()  # the runs of both that have not ended
        self._least_poll = self._poll_seconds = poll_seconds

    @property
    def is_free(self) -> bool:
        """Whether a worker is free."""
        return len(self._tasks) < self._n and not self._lost

    def submit(self, task: Task) -> None:
        """Give a task to a free worker."""
        for run in task.runs:
            followed = Followed(run, task.pause_at)
            if not followed.was_over:
                self._runs[run.number] = followed
        self._hand(task)

    def wait(self, report: Report) -> list[Task]:
        """Report new events of the journals, and return the tasks that have ended."""
        if not self._tasks and self._lost:
            task = self._lost.pop()
            self._train_alone(self._rest_of(task), report)
            return [task]
        return self._poll(report)

    def kill(self) -> None:
        """Kill the workers."""
        pool.shut_down()

    def end(self) -> None:
        """Have the workers of this executor's tasks end, no others."""
        for worker in self._tasks:
            worker.end()

    def _hand(self, task: Task) -> None:
        self._tasks[pool.submit(_train, task, self._files[task.digest])] = task

    def _poll(self, report: Report) -> list[Task]:
        """Report new events; return the tasks that have ended, and keep those whose worker has died."""
        self._check()
        ended = dict[Worker, _Outcome | None]()
        for worker in pool.wait(self._tasks, self._poll_seconds):
            try:
                ended[worker] = worker.result()
            except WorkerDied:
                ended[worker] = None
        started = time.perf_counter()
        unread = {number: events for number, run in self._runs.items() if (events := run.unread())}
        took = time.perf_counter() - started
        self._poll_seconds = min(max(self._least_poll, took / POLL_SHARE), LONGEST_POLL)
        for number, events in unread.items():
            for event in events:
                self._receive(number, event, report)
        over = []
        for worker, outcome in ended.items():
            task = self._tasks.pop(worker)
            if outcome is None:
                self._lost.append(task)
                continue
            over.append(task)
            if outcome.no_room is not None:
                raise outcome.no_room
            for run in self._rest_of(task).runs:
                unfinished = Ended(outcome.reason or "its worker did not finish")
                self._receive(run.number, outcome.ends.get(run.number, unfinished), report)
        return over

    def _train_alone(self, task: Task, report: Report) -> None:
        """Train a task that a worker may have died of, alone."""
        is_single = len(task.runs) == 1
        for _ in range(ATTEMPTS if is_single else 1):
            if not task.runs:
                return
            self._hand(task)
            while self._tasks:
                self._poll(report)
            if task in self._lost:
                self._lost.remove(task)
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


class Followed:
    """A run that a worker trains, and the new events of its journal."""

    def __init__(self, run: TaskRun, pause_at: int | None) -> None:
        self._journal, self._trainer = RunFolder(run.folder).journal, run.config.trainer
        self._history, self._pause_at, self.was_over = History(), pause_at, False
        with suppress(Exception):  # `unread` tells
            # A kill may have come between the last event and its report.
            self.was_over = any([self.is_over(event) for event in self._journal.unread()])

    def unread(self) -> list[Event]:
        """Return new events. A run whose journal can't be read has failed: nobody can follow it."""
        try:
            return list(self._journal.unread())
        except Exception as error:
            return [Ended(reason_of(error), traceback.format_exc())]

    def is_over(self, event: Event) -> bool:
        """Tell whether the run has ended or paused with this event."""
        if isinstance(event, Ended):
            return True
        self._history.add(event)
        if has_ended(self._history, self._trainer):
            return False  # its end follows
        return self._history.iterations == self._pause_at


@dataclass(frozen=True)
class _Outcome:
    """What a worker returns of a task.

    Attributes:
        ends: of runs that have ended, by number: a journal that can't be written lacks its run's.
        reason: the error that ended the task, or empty.
        no_room: the same, if it ends the sweep.
    """

    ends: dict[int, Ended]
    reason: str = ""
    no_room: Exception | None = None


def _train(task: Task, data: ArrayFiles) -> _Outcome:
    """Train a task, in a worker."""
    from lockstep.data import datasets  # here, because these load torch
    from lockstep.execution.task_training import train_task

    ends = dict[int, Ended]()

    def keep(number: int, event: Event) -> None:
        if isinstance(event, Ended):
            ends[number] = event

    try:
        train_task(task, datasets.mapped(data), keep)
    except Exception as error:
        return _Outcome(ends, reason_of(error), error if is_no_room(error) else None)
    finally:
        # It has none left. Their file stays open, and each attempt of a cluster's task has one of its own.
        claims.release_all()
    return _Outcome(ends)
