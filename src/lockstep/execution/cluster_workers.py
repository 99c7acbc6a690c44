"""An executor that trains on the workers of a Dask cluster, whatever becomes of them.

Each attempt to train a task has a thread here, which asks its worker for news. The command's thread writes
them to the runs' folders, as `wait` says. What a lost attempt has not sent is trained again, elsewhere, from
the last checkpoint, with the same bits.
"""

import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from lockstep.data.array_files import Source
from lockstep.execution import cluster_attempt, cluster_data
from lockstep.execution.cluster import Cluster, Member
from lockstep.execution.cluster_attempt import News, Order, roots
from lockstep.execution.task import Report, Task, is_no_room, reason_of
from lockstep.execution.workers import ATTEMPTS, Followed
from lockstep.recovery import copies
from lockstep.recovery.copies import Has
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import RunFolder

NEWS_SECONDS = 1.0
"""How long a worker collects news of an attempt; its end is told at once."""

WAIT_SECONDS = 0.5
"""The longest time that `wait` waits."""


@dataclass
class _Part:
    """A task, or a part of its runs, that is trained by one attempt after the other.

    Attributes:
        whole: the task that was submitted.
        n_lost: the attempts in a row that were lost without any news.
    """

    task: Task
    whole: Task
    n_lost: int = 0


@dataclass
class _Attempt:
    """An attempt to train a part on a worker.

    Attributes:
        claims: of the runs' folders: no other process writes to them.
        has_begun: whether there was news.
        stop: set once what its thread still hears counts no more.
    """

    part: _Part
    member: Member
    order: Order
    claims: ExitStack
    has_begun: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


class ClusterWorkers:
    """The workers of a cluster as an executor.

    A task whose worker is lost is trained elsewhere. A task that ATTEMPTS workers in a row were lost with is
    trained by halves, down to the run that can't be trained.

    Args:
        placed: called with runs' numbers and the name of the machine that trains them.
    """

    def __init__(
        self, cluster: Cluster, sources: Sequence[Source], placed: Callable[[Sequence[int], str], object]
    ) -> None:
        self._cluster, self._placed = cluster, placed
        self._sources = {source.description.digest: source for source in sources}
        self._waiting = list[_Part]()  # lost, and not yet with another worker
        self._attempts = dict[str, _Attempt]()
        self._runs = dict[int, Followed]()  # that have not ended
        self._messages = SimpleQueue[tuple[str, News | BaseException]]()
        self._giving = dict[str, threading.Lock]()  # data sets, by machine

    @property
    def is_free(self) -> bool:
        """Whether a worker is free."""
        return not self._waiting and self._free() is not None

    def submit(self, task: Task) -> None:
        """Give a task to a free worker."""
        for run in task.runs:
            followed = Followed(run, task.pause_at)
            if not followed.was_over:
                self._runs[run.number] = followed
        self._waiting.append(_Part(task, task))
        self._begin_waiting()

    def wait(self, report: Report) -> list[Task]:
        """Write news to the runs' folders and report them; return the tasks that have ended.

        Raises:
            ClusterLost: if the scheduler can't be reached again.
        """
        self._cluster.look()
        members = self._cluster.members
        for lost in [one for one in self._attempts.values() if one.member.address not in members]:
            self._messages.put((lost.order.identity, ConnectionError(f"{lost.member.name} has left")))
        self._begin_waiting()
        over, timeout = list[_Part](), WAIT_SECONDS
        with suppress(Empty):
            while True:
                identity, said = self._messages.get(timeout=timeout)
                timeout = 0.0
                attempt = self._attempts.get(identity)
                if attempt is not None and self._receive(attempt, said, report):
                    over.append(attempt.part)
        self._begin_waiting()
        under_way = {id(part.whole) for part in self._parts}
        return [part.whole for part in over if id(part.whole) not in under_way]

    def kill(self) -> None:
        """Stop asking for news, at which the workers end what they do."""
        for attempt in [*self._attempts.values()]:
            self._end(attempt)

    @property
    def _parts(self) -> list[_Part]:
        return [*self._waiting, *(attempt.part for attempt in self._attempts.values())]

    def _free(self) -> Member | None:
        """Return the member with the most free slots, None if there is none."""
        free = {address: member.n_slots for address, member in self._cluster.members.items()}
        for attempt in self._attempts.values():
            if attempt.member.address in free:
                free[attempt.member.address] -= 1
        most = max(free, key=lambda address: free[address], default=None)
        return None if most is None or free[most] < 1 else self._cluster.members[most]

    def _begin_waiting(self) -> None:
        while self._waiting and (member := self._free()) is not None:
            self._begin(self._waiting.pop(0), member)

    def _begin(self, part: _Part, member: Member) -> None:
        identity = uuid.uuid4().hex
        claims, folders, has = ExitStack(), {}, {}
        for run in part.task.runs:
            folder = RunFolder(run.folder)
            claims.enter_context(folder.in_training())
            has[run.number] = Has.of(folder)
            folders[run.number] = copies.changes(folder, Has(), {})
        order = Order(identity, part.task, folders)
        attempt = _Attempt(part, member, order, claims)
        self._attempts[identity] = attempt
        self._placed([run.number for run in part.task.runs], member.name)
        threading.Thread(target=self._follow, args=(attempt, has), daemon=True).start()

    def _follow(self, attempt: _Attempt, has: dict[int, Has]) -> None:
        """Have a worker train, and pass on its news: in a thread of its own."""
        order, address, client = attempt.order, attempt.member.address, self._cluster.client
        task = order.task
        try:
            assert attempt.member.machine is not None  # it trains
            with self._giving.setdefault(attempt.member.machine.cache, threading.Lock()):
                cluster_data.give(client, address, self._sources[task.digest], task.runs[0].config.data)
            client.run(cluster_attempt.receive, order, workers=[address])
            future = client.submit(
                cluster_attempt.train,
                order.identity,
                key=f"lockstep-{order.identity}",
                workers=[address],
                allow_other_workers=False,
                pure=False,
            )
            while not attempt.stop.is_set():
                status = future.status  # before the question: an attempt that is over has no news
                asked = client.run(cluster_attempt.news, order.identity, has, NEWS_SECONDS, workers=[address])
                news: News | None = asked[address]
                if news is not None:
                    attempt.has_begun = True
                    has = {number: of.after(news.runs[number]) for number, of in has.items()}
                    self._messages.put((order.identity, news))
                    if news.outcome is not None:
                        return
                elif status == "error":
                    future.result()
                elif attempt.has_begun or status != "pending":
                    raise ConnectionError("the command was not heard for too long")
                else:
                    time.sleep(0.05)
        except BaseException as error:  # a client that is closed meanwhile raises CancelledError
            self._messages.put((order.identity, error))

    def _receive(self, attempt: _Attempt, said: News | BaseException, report: Report) -> bool:
        """Write what an attempt's thread said; tell whether its part is over."""
        part = attempt.part
        if isinstance(said, BaseException):
            self._lose(attempt, reason_of(said), report)
            return not self._left(part.task)
        if any(changes.journal for changes in said.runs.values()):
            part.n_lost = 0
        for run in part.task.runs:
            if run.number in self._runs:
                self._write(run.number, RunFolder(run.folder), said, roots(part.task, run.number), report)
        if said.outcome is None:
            return False
        if said.outcome.is_no_room:
            self._cluster.refuse(attempt.member, said.outcome.reason)
            self._lose(attempt, said.outcome.reason, report)
            return False
        for number in self._left(part.task):
            unfinished = Ended(said.outcome.reason or "its worker did not finish")
            self._report(number, said.outcome.ends.get(number, unfinished), report)
        self._end(attempt)
        return True

    def _write(
        self, number: int, folder: RunFolder, said: News, roots: Mapping[str, Path], report: Report
    ) -> None:
        """Write a run's news to its folder; a run whose folder can't be written fails."""
        followed = self._runs[number]
        try:
            copies.apply(folder, said.runs[number], roots)
            events: list[Event] = followed.unread()
        except Exception as error:
            if is_no_room(error):
                raise
            events = [Ended(reason_of(error), traceback.format_exc())]
        for event in events:
            self._report(number, event, report)

    def _report(self, number: int, event: Event, report: Report) -> None:
        if number in self._runs and self._runs[number].is_over(event):
            del self._runs[number]
        report(number, event)

    def _lose(self, attempt: _Attempt, reason: str, report: Report) -> None:
        """Have what is left of a lost attempt's part trained elsewhere, or by halves; or fail its run."""
        self._end(attempt)
        part = attempt.part
        left = self._left(part.task)
        runs = [run for run in part.task.runs if run.number in left]
        part.n_lost += attempt.has_begun
        if not runs:
            return
        if part.n_lost < ATTEMPTS:
            self._waiting.append(_Part(part.task.of(runs), part.whole, part.n_lost))
        elif len(runs) == 1:
            died = f"{ATTEMPTS} workers in a row were lost while they trained it; the last one: {reason}"
            self._report(runs[0].number, Ended(died), report)
        else:
            half = -(-len(runs) // 2)
            for some in (runs[:half], runs[half:]):
                self._waiting.append(_Part(part.task.of(some), part.whole))

    def _left(self, task: Task) -> list[int]:
        return [run.number for run in task.runs if run.number in self._runs]

    def _end(self, attempt: _Attempt) -> None:
        attempt.stop.set()
        self._attempts.pop(attempt.order.identity, None)
        attempt.claims.close()
