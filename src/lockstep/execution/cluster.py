"""A command's connection to a Dask cluster, and whether its workers compute as this machine does.

Dask is loaded only where a cluster is named.
"""

import ipaddress
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lockstep._version import __version__
from lockstep.config.errors import Refused
from lockstep.execution import aside, cluster_client
from lockstep.execution.cluster_machine import Machine, canaries
from lockstep.execution.cluster_members import Member, Members

CONNECT_SECONDS, RECONNECT_SECONDS = 10, 60
"""How long a scheduler may take to answer at first, and once it was there."""

LOOK_SECONDS = 1.0
"""The interval at which workers that come and go are noticed."""

ALLOW = "hydra.launcher.mixed=true allows it"

log = logging.getLogger("lockstep")


class ClusterLost(Exception):
    """The scheduler can't be reached any more; the message says how to go on."""


class Cluster:
    """A connection to a cluster.

    Args:
        address: of the scheduler, or a scheduler file.
        mixed: whether workers that compute otherwise may train, too.
        precisions: of the command's runs.

    Attributes:
        members: its workers.
        client: Dask's.

    Raises:
        Refused: if Dask is not installed, or there is no scheduler.
    """

    def __init__(self, address: str, mixed: bool, precisions: Sequence[str]) -> None:
        self.address, self._mixed, self._precisions = address, mixed, tuple(precisions)
        self.client, self.members = cluster_client.connected(address, CONNECT_SECONDS), Members()
        self._here, self._looked_at = Future[Machine](), 0.0
        from lockstep.execution.cluster_attempt import describe  # here, because it loads Dask

        self._describe = describe
        # A thread for each answer that is waited for.
        self._threads = ThreadPoolExecutor(64, thread_name_prefix="lockstep-cluster")
        # All load torch for their answers: meanwhile the caller loads what it needs.
        aside.begin(canaries, self._precisions)
        self._asking = self._ask_new(self._workers() or {})

    def wait_for_answers(self) -> None:
        """Wait until it is known of each worker that is there whether it trains."""
        self._here.set_result(
            Machine("this machine", "", __version__, *aside.call(canaries, self._precisions))
        )
        until = time.monotonic() + CONNECT_SECONDS
        while not (workers := self._workers() or {}) and time.monotonic() < until:
            time.sleep(0.1)  # some may be starting
        for asked in [*self._asking, *self._ask_new(workers)]:
            asked.result()
        self.members.forget_others(workers)

    def check(self) -> None:
        """Check, once they have answered, that some may train; say of the others why they don't.

        Raises:
            Refused: if there are none.
        """
        if not self.members.training:
            reasons = [f"{member.name}: {member.reason}" for member in self.members.all.values()]
            reasons = reasons or ["it has no workers; docs/cluster.md says how to start some"]
            raise Refused([f"hydra.launcher.cluster={self.address}: {reason}" for reason in reasons])
        self.members.begin()

    @property
    def here(self) -> Machine:
        """This machine, after `wait_for_answers`."""
        return self._here.result()

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
        self._ask_new(workers)
        self.members.follow(workers)

    def close(self) -> None:
        """Leave the cluster; attempts that run end within seconds."""
        self._here.cancel()  # where no answer is waited for: threads wait for it
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

    def _ask_new(self, workers: Mapping[str, Any]) -> list[Future[None]]:
        return [self._threads.submit(self._ask, of, workers[of]) for of in self.members.to_ask(workers)]

    def _ask(self, address: str, info: Mapping[str, Any]) -> None:
        """Ask a worker what it is; it trains if it computes as this machine does."""
        machine = None
        try:
            machine = self.client.run(self._describe, self._precisions, workers=[address])[address]
            reason, may_be_mixed = self._differs(machine)
        except BaseException as error:  # a client that is closed meanwhile raises CancelledError
            reason, may_be_mixed = f"can't be asked what it is: {type(error).__name__}: {error}", False
        has_name = info["name"] != address
        name = str(info["name"]) if has_name else str(info["host"]) if machine is None else machine.host
        may_train = not reason or (self._mixed and may_be_mixed)
        self.members.add(Member(address, name, int(info["nthreads"]), machine, reason, may_train))

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
        self.members.clear()
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


_cluster: Cluster | None = None


def connect(address: str, mixed: bool, precisions: Sequence[str]) -> None:
    """Connect this command to a cluster, which trains its runs from now on, once `Cluster.check` has passed.

    Raises:
        Refused: if Dask is not installed, or there is no scheduler.
    """
    global _cluster
    _cluster = Cluster(address, mixed, precisions)


def connected() -> Cluster | None:
    """Return this command's cluster, None without one."""
    return _cluster


def disconnect() -> None:
    """Leave the cluster if there is one."""
    global _cluster
    if _cluster is not None:
        _cluster.close()
        _cluster = None
