"""An executor that trains on the workers of a Dask cluster, whatever becomes of them.

Each attempt to train a task has a thread here, which asks its worker for news. The command's thread writes
them to the runs' folders, as `wait` says. What a lost attempt has not sent is trained again, elsewhere, from
the last checkpoint, with the same bits.
"""

import logging
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

from lockstep.data.array_files import Source
from lockstep.execution.cluster import Cluster
from lockstep.execution.cluster_attempt import News, Order, roots
from lockstep.execution.cluster_following import Attempt, NotTheRuns, Part
from lockstep.execution.cluster_members import Member
from lockstep.execution.task import Report, Task, is_no_room, reason_of
from lockstep.execution.workers import ATTEMPTS, Followed
from lockstep.recovery import copies
from lockstep.recovery.copies import Changes, Has
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import RunFolder

WAIT_SECONDS = 0.5
"""The longest time that `wait` waits."""

REST_SECONDS = 1.0
"""How long a worker is not given a task on which it has just failed before any news."""

log = logging.getLogger("lockstep")


class _Unreadable(Exception):
    """The folder of a run, with this number, can't be read."""


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
        self._sources = {source.description.digest: (source.key, source.files()) for source in sources}
        self._waiting = list[Part]()  # lost, and not yet with another worker
        self._attempts = dict[str, Attempt]()
        self._runs = dict[int, Followed]()  # that have neither ended nor paused
        self._paused = set[int]()  # of which a checkpoint may still come
        # How often in a row a worker failed before any news, and when last, by its address.
        self._failed = dict[str, tuple[int, float]]()
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
            self._paused.discard(run.number)
            if not followed.was_over:
                self._runs[run.number] = followed
        self._waiting.append(Part(task, task))
        self._begin_waiting()

    def wait(self, report: Report) -> list[Task]:
        """Write news to the runs' folders and report them; return the tasks that have ended.

        Raises:
            ClusterLost: if the scheduler can't be reached again.
        """
        self._cluster.look()
        there = self._cluster.members.all
        for lost in [one for one in self._attempts.values() if one.member.address not in there]:
            self._messages.put((lost.order.identity, ConnectionError(f"{lost.member.name} has left")))
        self._begin_waiting()
        for one in self._attempts.values():
            one.tell(self._cluster.client)
        over, timeout = list[Part](), WAIT_SECONDS
        with suppress(Empty):
            while True:
                identity, said = self._messages.get(timeout=timeout)
                timeout = 0.0
                attempt = self._attempts.get(identity)
                if attempt is not None and self._receive(attempt, said, report):
                    over.append(attempt.part)
        self._begin_waiting()
        under_way = {id(part.whole) for part in self._parts}
        # Several parts of a task may be over at once.
        return [*{id(part.whole): part.whole for part in over if id(part.whole) not in under_way}.values()]

    def kill(self) -> None:
        """Stop asking for news, at which the workers end what they do."""
        for attempt in [*self._attempts.values()]:
            self._end(attempt)

    @property
    def _parts(self) -> list[Part]:
        return [*self._waiting, *(attempt.part for attempt in self._attempts.values())]

    def _free(self) -> Member | None:
        """Return the member with the most free slots, None if there is none."""
        now = time.monotonic()
        resting = {of for of, (_, at) in self._failed.items() if now - at < REST_SECONDS}
        members = self._cluster.members.training  # once: another thread asks workers meanwhile
        free = {address: member.n_slots for address, member in members.items() if address not in resting}
        for attempt in self._attempts.values():
            if attempt.member.address in free:
                free[attempt.member.address] -= 1
        most = max(free, key=lambda address: free[address], default=None)
        return None if most is None or free[most] < 1 else members[most]

    def _begin_waiting(self) -> None:
        while self._waiting and (member := self._free()) is not None:
            self._begin(self._waiting.pop(0), member)

    def _begin(self, part: Part, member: Member) -> None:
        identity = uuid.uuid4().hex
        claims, folders, has = ExitStack(), dict[int, Changes](), dict[int, Has]()
        order = Order(identity, part.task, folders)
        attempt = self._attempts[identity] = Attempt(part, member, order, claims)
        for run in part.task.runs:
            folder = RunFolder(run.folder)
            claims.enter_context(folder.in_training())
            try:
                has[run.number] = Has.of(folder)
                folders[run.number] = copies.changes(folder, Has(), {})
            except Exception as error:
                self._messages.put((identity, _Unreadable(run.number, reason_of(error))))
                return
        self._placed([run.number for run in part.task.runs], member.name)
        assert member.machine is not None  # it trains
        # One thread at a time gives a machine a data set.
        giving = self._giving.setdefault(member.machine.cache, threading.Lock())
        say = partial(self._say, identity)
        arguments = (self._cluster.client, *self._sources[part.task.digest], giving, has, say)
        threading.Thread(target=attempt.follow, args=arguments, daemon=True).start()

    def _say(self, identity: str, said: News | BaseException) -> None:
        self._messages.put((identity, said))

    def _receive(self, attempt: Attempt, said: News | BaseException, report: Report) -> bool:
        """Write what an attempt's thread said; tell whether its part is over."""
        part = attempt.part
        if isinstance(said, _Unreadable):
            number, reason = said.args
            self._report(number, Ended(reason), report)
        elif isinstance(said, BaseException):
            self._note_failure(attempt, said)
        if isinstance(said, BaseException):
            self._lose(attempt, said, report)
            return not self._left(part.task)
        self._failed.pop(attempt.member.address, None)
        if any(changes.journal for changes in said.runs.values()):
            part.n_lost = 0
        for run in part.task.runs:
            if run.number in self._runs or run.number in self._paused:
                self._write(run.number, RunFolder(run.folder), said, roots(part.task, run.number), report)
        if said.outcome is None:
            return False
        if said.outcome.is_no_room:
            self._cluster.members.refuse(attempt.member, said.outcome.reason)
            self._lose(attempt, NotTheRuns(said.outcome.reason), report)
            return not self._left(part.task)
        for number in self._left(part.task):
            unfinished = Ended(said.outcome.reason or "its worker did not finish")
            self._report(number, said.outcome.ends.get(number, unfinished), report)
        self._end(attempt)
        return True

    def _write(
        self, number: int, folder: RunFolder, said: News, roots: Mapping[str, Path], report: Report
    ) -> None:
        """Write a run's news to its folder; a run whose folder can't be written fails."""
        followed, events = self._runs.get(number), list[Event]()
        try:
            copies.apply(folder, said.runs[number], roots)
            if followed is not None:
                events = followed.unread()
        except Exception as error:
            if is_no_room(error):
                raise
            events = [Ended(reason_of(error), traceback.format_exc())]
        for event in events:
            self._report(number, event, report)

    def _report(self, number: int, event: Event, report: Report) -> None:
        if number in self._runs and self._runs[number].is_over(event):
            del self._runs[number]
            if not isinstance(event, Ended):
                self._paused.add(number)
        report(number, event)

    def _note_failure(self, attempt: Attempt, error: BaseException) -> None:
        """Have a worker rest that failed before any news; after ATTEMPTS such failures, refuse it."""
        member, now = attempt.member, time.monotonic()
        if member.address not in self._cluster.members.all or self._cluster.client.status != "running":
            return  # `look` says it
        if attempt.has_begun:
            log.warning("cluster: %s: its runs are trained again: %s", member.name, reason_of(error))
            return
        n, at = self._failed.get(member.address, (0, 0.0))
        n += now - at > REST_SECONDS  # of several tasks that failed at once, one counts
        self._failed[member.address] = n, now
        if is_no_room(error) or n >= ATTEMPTS:
            del self._failed[member.address]
            self._cluster.members.refuse(member, reason_of(error))

    def _lose(self, attempt: Attempt, error: BaseException, report: Report) -> None:
        """Have what is left of a lost attempt's part trained elsewhere, or by halves; or fail its run."""
        self._end(attempt)
        part = attempt.part
        left = self._left(part.task)
        runs = [run for run in part.task.runs if run.number in left]
        part.n_lost += attempt.has_begun and not isinstance(error, NotTheRuns)
        if not runs:
            return
        if part.n_lost < ATTEMPTS:
            self._waiting.append(Part(part.task.of(runs), part.whole, part.n_lost))
        elif len(runs) == 1:
            said = reason_of(error)
            died = f"{ATTEMPTS} workers in a row were lost while they trained it; the last one: {said}"
            self._report(runs[0].number, Ended(died), report)
        else:
            half = -(-len(runs) // 2)
            for some in (runs[:half], runs[half:]):
                self._waiting.append(Part(part.task.of(some), part.whole))

    def _left(self, task: Task) -> list[int]:
        return [run.number for run in task.runs if run.number in self._runs]

    def _end(self, attempt: Attempt) -> None:
        attempt.stop.set()
        self._attempts.pop(attempt.order.identity, None)
        attempt.claims.close()
