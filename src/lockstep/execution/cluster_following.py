"""An attempt to train a task on a worker of a cluster, as the command follows it: in a thread of its own."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from distributed import Client

from lockstep.data.array_files import ArrayFiles
from lockstep.execution import cluster_attempt, cluster_data
from lockstep.execution.cluster_attempt import News, Order
from lockstep.execution.cluster_members import Member
from lockstep.execution.task import Task
from lockstep.recovery.copies import Has

NEWS_SECONDS = 1.0
"""How long a worker collects news of an attempt; its end is told at once."""

LATE_SECONDS = 2.0
"""How long an answer may take until the worker hears that it is waited for: its patience is LEASE_SECONDS."""


class NotTheRuns(Exception):
    """An attempt was lost for a reason that has nothing to do with its runs."""


@dataclass
class Part:
    """A task, or a part of its runs, that is trained by one attempt after the other.

    Attributes:
        whole: the task that was submitted.
        n_lost: the attempts in a row whose worker was lost before its runs had a new event.
    """

    task: Task
    whole: Task
    n_lost: int = 0


@dataclass
class Attempt:
    """An attempt to train a part on a worker.

    Attributes:
        claims: of the runs' folders: no other process writes to them.
        has_begun: whether there was news.
        stop: set once what its thread still hears counts no more.
    """

    part: Part
    member: Member
    order: Order
    claims: ExitStack
    has_begun: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    _asked_at: float = field(default_factory=time.monotonic)
    _telling: threading.Thread | None = None

    def follow(
        self,
        client: Client,
        key: str | None,
        files: ArrayFiles,
        giving: threading.Lock,
        has: dict[int, Has],
        say: Callable[[News | BaseException], object],
    ) -> None:
        """Have the worker train, and pass on its news, or the error that ends the attempt.

        Args:
            key, files: the data set, see lockstep.data.array_files.Source.
            giving: held while the worker is given the data set.
            has: what the runs' folders have, by the run's number.
        """
        identity, address = self.order.identity, self.member.address
        to = [address]
        try:
            with giving:
                cluster_data.give(client, address, key, files, self.order.task.runs[0].config.data)
            client.run(cluster_attempt.receive, self.order, workers=to)
            placed = {"workers": to, "allow_other_workers": False, "pure": False}
            future = client.submit(cluster_attempt.train, identity, key=f"lockstep-{identity}", **placed)
            while not self.stop.is_set():
                status = future.status  # before the question: an attempt that is over has no news
                self._asked_at = time.monotonic()
                asked = client.run(cluster_attempt.news, identity, has, NEWS_SECONDS, workers=to)
                news: News | None = asked[address]
                if news is not None:
                    self.has_begun = True
                    has = {number: of.after(news.runs[number]) for number, of in has.items()}
                    say(news)
                    if news.outcome is not None:
                        return
                elif status == "error":
                    future.result()
                elif self.has_begun or status != "pending":
                    raise NotTheRuns("the worker did not hear of the command for too long")
                else:
                    time.sleep(0.05)
        except BaseException as error:  # a client that is closed meanwhile raises CancelledError
            say(error)

    def tell(self, client: Client) -> None:
        """Tell the worker that the command is there, if its answer takes long: it may be megabytes."""
        is_told = self._telling is not None and self._telling.is_alive()
        if time.monotonic() - self._asked_at > LATE_SECONDS and not is_told:
            self._telling = threading.Thread(target=self._stay, args=(client,), daemon=True)
            self._telling.start()

    def _stay(self, client: Client) -> None:
        with suppress(BaseException):  # `follow` tells of what is lost
            client.run(cluster_attempt.stay, self.order.identity, workers=[self.member.address])
        time.sleep(1)  # until it is told again
