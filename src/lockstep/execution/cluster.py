"""A command's connection to a Dask cluster, and which of its workers compute as this machine does.

Dask is loaded only where a cluster is named.
"""

import ipaddress
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from lockstep._version import __version__
from lockstep.config.errors import Refused
from lockstep.execution import aside, cluster_client
from lockstep.execution.cluster_machine import Machine, canaries

CONNECT_SECONDS, RECONNECT_SECONDS = 10, 60
"""How long a scheduler may take to answer at first, and once it was there."""

LOOK_SECONDS = 1.0
"""The interval at which workers that come and go are noticed."""

RETRY_SECONDS = 30.0
"""How long a worker that failed is given no tasks: a disk may have room again."""

SHOWN_NAMES = 3
"""Workers that a line names."""

ALLOW = "hydra.launcher.mixed=true allows it"

log = logging.getLogger("lockstep")


class ClusterLost(Exception):
    """The scheduler can't be reached any more; the message says how to go on."""


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


class Cluster:
    """A connection to a cluster.

    Args:
        address: of the scheduler, or a scheduler file.
        mixed: whether workers that compute otherwise may train, too.
        precisions: of the command's runs.

    Attributes:
        here: this machine.
        known: the cluster's workers, by address.
        client: Dask's.

    Raises:
        Refused: if Dask is not installed, or there is no scheduler.
    """

    def __init__(self, address: str, mixed: bool, precisions: Sequence[str]) -> None:
        self.address, self._mixed, self._precisions = address, mixed, tuple(precisions)
        self.client = cluster_client.connected(address, CONNECT_SECONDS)
        torch, found = aside.call(canaries, self._precisions)
        self.here = Machine("this machine", "", __version__, torch, found)
        self.known = dict[str, Member]()
        self._asked = set[str]()  # the addresses of workers that are asked what they are
        self._retry_at = dict[str, float]()  # when to ask those again that failed, by address
        self._waits = False  # whether it was said that no worker is left that trains
        self._lock, self._looked_at = threading.Lock(), 0.0
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="lockstep-cluster")
        until = time.monotonic() + CONNECT_SECONDS
        while not (workers := self._workers() or {}) and time.monotonic() < until:
            time.sleep(0.1)  # some may be starting
        for asked in [self._threads.submit(self._ask, *of) for of in workers.items()]:
            asked.result()
        self._said = set(self.known)

    def check(self) -> None:
        """Check that there are workers that may train; say of the others why they don't.

        Raises:
            Refused: if there are none.
        """
        if not self.members:
            reasons = [f"{member.name}: {member.reason}" for member in self.known.values()]
            reasons = reasons or ["it has no workers; docs/cluster.md says how to start some"]
            raise Refused([f"hydra.launcher.cluster={self.address}: {reason}" for reason in reasons])
        self._say_who_does_not_train(self.known.values())

    @property
    def members(self) -> dict[str, Member]:
        """The workers that train for this command, by address."""
        with self._lock:
            return {address: member for address, member in self.known.items() if member.may_train}

    @property
    def addresses(self) -> set[str]:
        """The addresses of the workers that are there, whether they train or not."""
        with self._lock:
            return set(self.known)

    @property
    def n_slots(self) -> int:
        """How many tasks all members train at a time."""
        return sum(member.n_slots for member in self.members.values())

    @property
    def dashboard(self) -> str:
        """The address of Dask's own dashboard, empty without one."""
        return str(self.client.dashboard_link or "")

    @property
    def is_open_to_others(self) -> bool:
        """Whether the scheduler is reached over a network, and without TLS."""
        scheme, _, place = str(self.client.scheduler_info()["address"]).partition("://")
        try:
            is_here = ipaddress.ip_address(place.rpartition(":")[0].strip("[]")).is_loopback
        except ValueError:
            is_here = False
        return scheme != "tls" and not is_here

    def look(self) -> None:
        """Notice workers that have come or gone; reconnect where the scheduler was lost.

        Raises:
            ClusterLost: if it can't be reached again.
        """
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        workers = self._workers()
        if workers is None:
            self._reconnect()
            return
        self._looked_at = time.monotonic()
        with self._lock:
            gone = [self.known.pop(address) for address in self.known.keys() - workers]
            again = {of for of, at in self._retry_at.items() if at < self._looked_at and of in workers}
            known = self.known.keys() - again
            new = {of: info for of, info in workers.items() if of not in self._asked | known}
            self._asked |= new.keys()
            self._retry_at = {
                of: at for of, at in self._retry_at.items() if of in workers and of not in again
            }
            come = [member for address, member in self.known.items() if address not in self._said]
            self._said = set(self.known)
            is_empty = not (new or self._asked or any(member.may_train for member in self.known.values()))
        _say("left", [member for member in gone if member.may_train])
        _say("come", [member for member in come if member.may_train])
        self._say_who_does_not_train(come)
        if is_empty and not self._waits:
            log.warning("cluster: no worker is left that trains; waiting for one")
        self._waits = is_empty
        for of in new.items():
            self._threads.submit(self._ask, *of)

    def refuse(self, member: Member, reason: str) -> None:
        """Give a worker no tasks for RETRY_SECONDS."""
        with self._lock:
            if member.address not in self.known:
                return
            self.known[member.address] = replace(member, reason=reason, may_train=False)
            self._retry_at[member.address] = time.monotonic() + RETRY_SECONDS
        log.warning("cluster: %s trains nothing for %.0f s: %s", member.name, RETRY_SECONDS, reason)

    def _say_who_does_not_train(self, members: Iterable[Member]) -> None:
        for member in members:
            if not member.may_train:
                log.warning("cluster: %s (%s) does not train: %s", member.name, member.address, member.reason)

    def close(self) -> None:
        """Leave the cluster; attempts that run end within seconds."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.client.close(timeout=2)

    def _workers(self) -> Mapping[str, Any] | None:
        """Return Dask's descriptions of the workers, by address; None if the scheduler does not answer."""
        if self.client.status != "running":
            return None
        try:
            found: Mapping[str, Any] | None = self.client.scheduler_info(n_workers=-1).get("workers")
        except (OSError, RuntimeError):  # Dask's errors of communication are OSErrors
            return None
        return found

    def _ask(self, address: str, info: Mapping[str, Any]) -> None:
        """Ask a worker what it is; it trains if it computes as this machine does."""
        from lockstep.execution import cluster_attempt  # here, because it loads Dask

        machine = None
        try:
            machine = self.client.run(cluster_attempt.describe, self._precisions, workers=[address])[address]
            reason, may_be_mixed = self._differs(machine)
        except BaseException as error:  # a client that is closed meanwhile raises CancelledError
            reason, may_be_mixed = f"can't be asked what it is: {type(error).__name__}: {error}", False
        has_name = info["name"] != address
        name = str(info["name"]) if has_name else str(info["host"]) if machine is None else machine.host
        may_train = not reason or (self._mixed and may_be_mixed)
        with self._lock:
            self._asked.discard(address)
            if machine is None:
                self._retry_at[address] = time.monotonic() + RETRY_SECONDS
            self.known[address] = Member(address, name, int(info["nthreads"]), machine, reason, may_train)

    def _differs(self, machine: Machine) -> tuple[str, bool]:
        """Return why a worker does not compute as this machine does, empty if it does; and whether that can
        be allowed."""
        here = self.here
        if machine.lockstep != here.lockstep:
            return f"Lockstep {machine.lockstep} is there, and {here.lockstep} here", False
        if machine.torch != here.torch:
            return f"torch {machine.torch} is there, and {here.torch} here; {ALLOW}", True
        if machine.canaries != here.canaries:
            return f"it computes other bits (canary {machine.canary}, here {here.canary}); {ALLOW}", True
        return "", True

    def _reconnect(self) -> None:
        log.warning("cluster: the scheduler does not answer; trying again for %d s", RECONNECT_SECONDS)
        until = time.monotonic() + RECONNECT_SECONDS
        self.client.close(timeout=1)
        with self._lock:
            self.known.clear()
            self._asked.clear()
        while True:
            try:
                self.client = cluster_client.connected(self.address, 5)
                break
            except Refused as refused:
                if time.monotonic() > until:
                    raise ClusterLost(
                        f"{refused}\nGive the same command again: it resumes from the last checkpoints"
                    ) from refused
                time.sleep(1)
        log.info("cluster: the scheduler answers again")


def _say(what: str, members: Sequence[Member]) -> None:
    """Say in a line for each machine that workers have come or left."""
    by_host: dict[str, list[str]] = {}
    for member in members:
        by_host.setdefault(member.machine.host if member.machine else member.name, []).append(member.name)
    for host, names in by_host.items():
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        listed = ", ".join(sorted(names)[:SHOWN_NAMES])
        verb = "has" if len(names) == 1 else "have"
        where = "" if names == [host] else f" on {host}"
        log.info("cluster: %s%s%s %s %s", listed, more, where, verb, what)


_cluster: Cluster | None = None


def connect(address: str, mixed: bool, precisions: Sequence[str]) -> Cluster:
    """Connect this command to a cluster, which trains its runs from now on.

    Raises:
        Refused: if it can't be used: Dask, a scheduler, or a worker that may train is missing.
    """
    global _cluster
    joined = Cluster(address, mixed, precisions)
    try:
        joined.check()
    except Refused:
        joined.close()
        raise
    _cluster = joined
    return _cluster


def connected() -> Cluster | None:
    """Return this command's cluster, None without one."""
    return _cluster


def disconnect() -> None:
    """Leave the cluster if there is one."""
    global _cluster
    if _cluster is not None:
        _cluster.close()
        _cluster = None
