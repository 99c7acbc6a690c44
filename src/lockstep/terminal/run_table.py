"""The table of a command's runs while they train."""

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table

from lockstep.config.schema import RunConfig
from lockstep.results.history import History
from lockstep.terminal.columns import Column, fitted

ORDER = {"training": 1, "waiting": 3}
"""The order of states in the table, behind the best run; others have 2."""


@dataclass(frozen=True)
class Measured:
    """A run after one more epoch.

    Attributes:
        epochs: trained so far.
        loss, accuracy: means over the last epoch's minibatches.
        held_out: loss and accuracy after it by split; runs are compared by the first split's accuracy.
        seconds: training time so far.
    """

    epochs: int
    loss: float
    accuracy: float
    held_out: dict[str, tuple[float, float]]
    seconds: float

    @classmethod
    def of(cls, history: History) -> "Measured":
        """Return the measurements after the last epoch of a history, which has one."""
        start, end = [0, *history.epoch_ends][-2:]
        return cls(
            history.epochs,
            history.loss_T[start:end].mean(),
            history.accuracy_T[start:end].mean(),
            {
                split: (of_split[-1].loss, of_split[-1].accuracy)
                for split in ("val", "test")
                if (of_split := history.of(split))
            },
            history.seconds,
        )

    @property
    def objective(self) -> float:
        return next((accuracy for _, accuracy in self.held_out.values()), self.accuracy)


@dataclass
class Row:
    """A run of the command.

    Attributes:
        state: a word; `training` while it is in an array.
        measured: its measurements after each epoch that this command has trained, and before the first one
            that it resumes from.
        final: its accuracy, once it has ended.
        machine: of a cluster, that trains or trained it.
    """

    name: str
    config: RunConfig
    state: str = "waiting"
    measured: list[Measured] = field(default_factory=list)
    final: float | None = None
    machine: str = ""

    @property
    def epochs(self) -> int:
        return self.measured[-1].epochs if self.measured else 0

    @property
    def progress(self) -> str:
        """Epochs done, of how many; empty if an earlier command trained them."""
        is_stored = self.final is not None and not self.measured
        return "" if is_stored else f"{self.epochs}/{self.config.trainer.epochs}"

    @property
    def is_over(self) -> bool:
        return self.state not in ("waiting", "training")

    @property
    def objective(self) -> float | None:
        if self.final is None and self.measured:
            return self.measured[-1].objective
        return self.final


def run_table(rows: Sequence[Row], height: int, width: int) -> Table:
    """Return the table of runs: the best one, then training runs, ended runs and waiting runs.

    Args:
        height: the number of rows that there is room for; a caption counts the others.
        width: see `fitted`.
    """

    def accuracy(row: Row) -> float:
        return -math.inf if row.objective is None else row.objective

    best = max((row for row in rows if row.objective is not None), key=accuracy, default=None)
    shown = heapq.nsmallest(
        max(1, height), rows, key=lambda row: (row is not best, ORDER.get(row.state, 2), -accuracy(row))
    )
    left = Counter(row.state for row in rows) - Counter(row.state for row in shown)
    left_out = [f"{left[state]} {state}" for state in sorted(left, key=lambda state: ORDER.get(state, 2))]
    split = "val" if any(row.config.data.val_size for row in rows) else "test"
    losses = [f"{row.measured[-1].loss:.4f}" if row.measured else "" for row in shown]
    accuracies = ["" if row.objective is None else f"{row.objective:.4f}" for row in shown]
    columns = [
        Column("epoch", [row.progress for row in shown], importance=1),
        Column("train loss", losses, importance=0),
        Column(f"{split} accuracy", accuracies),
        Column("state", [row.state + (" (best)" if row is best else "") for row in shown], kind="word"),
    ]
    if any(row.machine for row in rows):
        columns.append(Column("machine", [row.machine for row in shown], kind="word", importance=0))
    return fitted(
        Column("run", [row.name for row in shown]),
        columns,
        width,
        "ellipsis",
        ["bold green" if row is best else None for row in shown],
        f"and {left.total()} more: {', '.join(left_out)}" if left else None,
    )
