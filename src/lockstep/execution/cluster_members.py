"""The workers of a cluster as a command knows them, and which of them train. Light: no Dask."""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from lockstep.execution.cluster_machine import Machine

RETRY_SECONDS = 30.0
"""How long a worker that failed is given no tasks: a disk may have room again."""

SHOWN_NAMES = 3
"""Workers that a line names."""

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class Member:
    """A worker of the cluster, and whether it trains for this command.

    Attributes:
        name: for people: what it was named when it was started, else its host.
        n_slots: how many tasks it trains at a time.
        machine: None if it could not be asked.
        reason: why it doesn't compute as this machine does, or can't be asked; empty if it does.
        may_train: whether it trains.
    """

    address: str
    name: str
    n_slots: int
    machine: Machine | None
    reason: str
    may_train: bool


class Members:
    """The workers that are there and have been asked what they are. Threads ask them."""

    def __init__(self) -> None:
        self._known = dict[str, Member]()  # by address, as all below
        self._asked = set[str]()  # who has not answered yet
        self._retry_at = dict[str, float]()  # when to ask those again that failed
        self._said = set[str]()  # who was there at the last `follow`
        self._waits = False  # whether it was said that no worker is left that trains
        self._lock = threading.Lock()

    @property
    def all(self) -> dict[str, Member]:
        """All of them, by address."""
        with self._lock:
            return dict(self._known)

    @property
    def training(self) -> dict[str, Member]:
        """Those that train for this command, by address."""
        return {address: member for address, member in self.all.items() if member.may_train}

    @property
    def n_slots(self) -> int:
        """How many tasks all that train do at a time."""
        return sum(member.n_slots for member in self.training.values())

    def to_ask(self, there: Iterable[str]) -> set[str]:
        """Return which of the workers that are there are to be asked, which the caller does at once."""
        now = time.monotonic()
        with self._lock:
            again = {of for of, at in self._retry_at.items() if at < now}
            asked = {of for of in there if of not in self._asked | (self._known.keys() - again)}
            self._asked |= asked
            self._retry_at = {of: at for of, at in self._retry_at.items() if of not in asked}
        return asked

    def add(self, member: Member) -> None:
        """Add a worker that has answered, or can't be asked, for RETRY_SECONDS."""
        with self._lock:
            self._asked.discard(member.address)
            self._known[member.address] = member
            if member.machine is None:
                self._retry_at[member.address] = time.monotonic() + RETRY_SECONDS

    def refuse(self, member: Member, reason: str) -> None:
        """Give a worker no tasks for RETRY_SECONDS."""
        with self._lock:
            if member.address not in self._known:
                return
            self._known[member.address] = replace(member, reason=reason, may_train=False)
            self._retry_at[member.address] = time.monotonic() + RETRY_SECONDS
        log.warning("cluster: %s trains nothing for %.0f s: %s", member.name, RETRY_SECONDS, reason)

    def begin(self) -> None:
        """Take those that are there for those that were there at the start: say who does not train."""
        there = self.all
        self._said = set(there)
        _say_who_does_not_train(there.values())

    def forget_others(self, there: Collection[str]) -> list[Member]:
        """Forget workers that are not there any more, and return them."""
        with self._lock:
            self._retry_at = {of: at for of, at in self._retry_at.items() if of in there}
            return [self._known.pop(address) for address in self._known.keys() - there]

    def follow(self, there: Collection[str]) -> None:
        """Forget workers that are not there any more; say in a line for each machine who has come or left."""
        gone = self.forget_others(there)
        with self._lock:
            come = [member for address, member in self._known.items() if address not in self._said]
            self._said = set(self._known)
            is_empty = not (self._asked or any(member.may_train for member in self._known.values()))
        _say("left", [member for member in gone if member.may_train])
        _say("come", [member for member in come if member.may_train])
        _say_who_does_not_train(come)
        if is_empty and not self._waits:
            log.warning("cluster: no worker is left that trains; waiting for one")
        self._waits = is_empty

    def clear(self) -> None:
        """Forget all: they are asked again."""
        with self._lock:
            self._known.clear()
            self._asked.clear()
            self._retry_at.clear()


def _say_who_does_not_train(members: Iterable[Member]) -> None:
    for member in members:
        if not member.may_train:
            log.warning("cluster: %s (%s) does not train: %s", member.name, member.address, member.reason)


def _say(what: str, members: Sequence[Member]) -> None:
    by_host: dict[str, list[str]] = {}
    for member in members:
        by_host.setdefault(member.machine.host if member.machine else member.name, []).append(member.name)
    for host, names in by_host.items():
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        listed = ", ".join(sorted(names)[:SHOWN_NAMES])
        verb = "has" if len(names) == 1 else "have"
        where = "" if names == [host] else f" on {host}"
        log.info("cluster: %s%s%s %s %s", listed, more, where, verb, what)
