"""Trials that wait to be trained, in queues of those that can share an array.

Promoted trials wait until they fill an array, or until no new trials can start. New trials start meanwhile,
so that no worker is idle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from optuna.trial import Trial

from lockstep.config.data_config import DataConfig
from lockstep.results.early_stopping import has_ended
from lockstep.sweep.entry import Entry


@dataclass(frozen=True)
class Queue:
    """A queue's key: pending trials with equal keys can share an array.

    Attributes:
        rung: at which they were last promoted, or 0.
        next_rung: at which they pause next, None if they train to their end.
    """

    rung: int
    next_rung: int | None
    data: DataConfig
    device: str
    precision: str


@dataclass
class TrialRun:
    """A trial and its run.

    Attributes:
        iterations: after which it pauses, by rung.
        promoted_at: the rung from which it was last promoted, or 0.
        reported: the last rung at which the study has its score, or 0.
        score: the one at that rung.
        twins: later trials with the same config, which get the same result.
    """

    trial: Trial
    entry: Entry
    iterations: Mapping[int, int] = field(default_factory=dict)
    promoted_at: int = 0
    reported: int = 0
    score: float = 0.0
    twins: "list[TrialRun]" = field(default_factory=list)

    @property
    def next_rung(self) -> int | None:
        """The rung at which it pauses next, None if it trains to its end."""
        return next((rung for rung in self.iterations if rung > self.promoted_at), None)

    @property
    def has_paused(self) -> bool:
        """Whether it has trained to its next rung, and not ended there."""
        entry, rung = self.entry, self.next_rung
        has_reached = rung is not None and entry.history.iterations == self.iterations[rung]
        return has_reached and not has_ended(entry.history, entry.config.trainer)


class Queues:
    """The queues of a search.

    Args:
        array_size: the most trials of an array.
        n_workers: the number of workers that take arrays.
    """

    def __init__(self, array_size: int, n_workers: int) -> None:
        self._array_size, self._n_workers = array_size, n_workers
        self._pending: dict[Queue, list[TrialRun]] = {}

    def add(self, run: TrialRun, queue: Queue) -> None:
        """Let a trial wait in a queue."""
        self._pending.setdefault(queue, []).append(run)

    def ready(self, more: bool) -> Queue | None:
        """Return the queue that trains next: a full one, at the highest rung; else new trials; else, if no
        trial can start any more, the one at the lowest rung, whose promoted trials can join higher queues.

        Args:
            more: whether new trials can start.
        """
        full = [queue for queue, group in self._pending.items() if len(group) >= self._array_size]
        if full:
            return max(full, key=lambda queue: (queue.rung, len(self._pending[queue])))
        new = [queue for queue in self._pending if queue.rung == 0]
        left = [] if more else list(self._pending)
        return min(new or left, key=lambda queue: (queue.rung, -len(self._pending[queue])), default=None)

    def take(self, queue: Queue, more: bool) -> list[TrialRun]:
        """Remove an array's trials from a queue, and return them; `more` as for `ready`."""
        group = sorted(self._pending.pop(queue), key=lambda run: run.trial.number)
        # If no new trials can start, the workers share the pending ones.
        size = self._array_size if more else -(-len(group) // self._n_workers)
        size = min(size, self._array_size)
        if left := group[size:]:
            self._pending[queue] = left
        return group[:size]

    def take_paused(self) -> list[list[TrialRun]]:
        """Remove queues all of whose trials have paused at their next rung already; return their trials.

        A trial whose patience is over there has not paused: it trains again from its checkpoint, to its end.
        """
        paused = [queue for queue, group in self._pending.items() if all(run.has_paused for run in group)]
        return [self._pending.pop(queue) for queue in paused]
