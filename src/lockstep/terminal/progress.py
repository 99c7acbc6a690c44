"""Progress of a command's runs: a table and a bar in a terminal, lines elsewhere."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from lockstep.config.schema import RunConfig
from lockstep.results.history import History
from lockstep.terminal import console as terminal

REFRESHES_PER_SECOND = 2
"""Refreshes of the table and the bar. Each takes some milliseconds, and runs may train in this process."""

SPARE_LINES = 5
"""Lines of the terminal without runs: the table's header and caption, the bar, and room for the prompt."""


@dataclass(frozen=True)
class _Measured:
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

    @property
    def objective(self) -> float:
        return next((accuracy for _, accuracy in self.held_out.values()), self.accuracy)


@dataclass
class _Row:
    """A run of the command.

    Attributes:
        state: a word or a few; `training` while it is in an array.
        measured: its measurements after each epoch that this command has trained.
        stored: its last accuracy, if an earlier command trained it.
    """

    name: str
    config: RunConfig
    state: str = "waiting"
    epochs: int = 0
    measured: list[_Measured] = field(default_factory=list)
    stored: float | None = None

    @property
    def is_over(self) -> bool:
        return self.state not in ("waiting", "training")

    @property
    def objective(self) -> float | None:
        return self.measured[-1].objective if self.measured else self.stored


class _Array:
    """Runs that train together.

    Attributes:
        printed: the number of their epochs that were printed.
    """

    def __init__(self, number: int, rows: Sequence[_Row]) -> None:
        self.number, self.rows, self.printed = number, rows, 0
        self._before = [len(row.measured) for row in rows]

    def next(self) -> list[tuple[_Row, _Measured]] | None:
        """Return the next epoch to print, of each run that has it; None until every run has reported."""
        found = []
        for row, before in zip(self.rows, self._before, strict=True):
            if len(row.measured) > before + self.printed:
                found.append((row, row.measured[before + self.printed]))
            elif not row.is_over and row.epochs < row.config.trainer.epochs:
                return None
        return found or None


class Progress:
    """Progress of a command's runs, in epochs.

    A terminal shows a bar, and for a sweep a table of runs above it, at most a screen high. Elsewhere, and
    for a single run, a line is printed for each epoch of each array.

    Args:
        epochs: the epochs of all runs, as far as known.
        is_sweep: whether the command may have several runs.
    """

    def __init__(self, epochs: int, is_sweep: bool) -> None:
        self._rows: dict[int, _Row] = {}
        self._array_of: dict[int, _Array] = {}
        self._n_arrays = 0
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("training", total=epochs)
        self._with_table = is_sweep and terminal.console.is_terminal
        self._live = Live(
            get_renderable=self._below,
            console=terminal.console,
            transient=True,
            refresh_per_second=REFRESHES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        if terminal.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def add(self, number: int, name: str, config: RunConfig) -> None:
        """Add a run."""
        self._rows[number] = _Row(name, config)

    def array(self, numbers: Sequence[int]) -> None:
        """Show runs as training, together as an array."""
        self._n_arrays += 1
        array = _Array(self._n_arrays, [self._rows[number] for number in numbers])
        for number, row in zip(numbers, array.rows, strict=True):
            self._array_of[number] = array
            row.state = "training"

    def resume(self, number: int, epochs: int) -> None:
        """Set the epochs of a run that an earlier command trained."""
        self._rows[number].epochs = epochs

    def epoch(self, number: int, history: History) -> None:
        """Show a run's last epoch, or that it diverged."""
        row = self._rows[number]
        if history.diverged_at is not None:
            row.state = "diverged"
            terminal.console.print(f"{row.name}  diverged at iteration {history.diverged_at}", soft_wrap=True)
        else:
            row.epochs = history.epochs
            iterations = len(history.loss_T) // history.epochs
            row.measured.append(
                _Measured(
                    history.epochs,
                    history.loss_T[-iterations:].mean(),
                    history.accuracy_T[-iterations:].mean(),
                    {
                        split: (of_split[-1].loss, of_split[-1].accuracy)
                        for split in ("val", "test")
                        if (of_split := history.of(split))
                    },
                    history.seconds,
                )
            )
        self._print(number)

    def end(self, number: int, state: str, metrics: Mapping[str, float] = MappingProxyType({})) -> None:
        """Show that a run has ended.

        Args:
            state: why, in a word or a few.
            metrics: its last ones, if another command trained it.
        """
        accuracy = metrics.get("val/accuracy", metrics.get("test/accuracy"))
        self._rows[number].state, self._rows[number].stored = state, accuracy
        self._print(number)

    def _print(self, number: int) -> None:
        """Print a line for each epoch that all runs of the run's array have completed."""
        array = self._array_of.get(number)
        while array is not None and not self._with_table and (epoch := array.next()):
            terminal.console.print(_line(array, epoch), soft_wrap=True)
            array.printed += 1

    def _below(self) -> Group:
        rows = list(self._rows.values())
        done = sum(row.config.trainer.epochs if row.is_over else row.epochs for row in rows)
        self._bar.update(self._task, completed=done)
        return Group(self._table(rows), self._bar) if self._with_table else Group(self._bar)

    def _table(self, rows: Sequence[_Row]) -> Table:
        """Return the table of runs: the best one, then training runs, ended runs and waiting runs."""
        order = {"training": 1, "waiting": 3}

        def accuracy(row: _Row) -> float:
            return -math.inf if row.objective is None else row.objective

        best = max((row for row in rows if row.objective is not None), key=accuracy, default=None)
        by_interest = sorted(rows, key=lambda row: (row is not best, order.get(row.state, 2), -accuracy(row)))
        shown = by_interest[: max(1, terminal.console.height - SPARE_LINES)]
        left = Counter(row.state for row in by_interest[len(shown) :])
        split = next((split for row in rows for of in row.measured for split in of.held_out), "test")
        table = Table(
            box=None,
            pad_edge=False,
            header_style="bold",
            caption_justify="left",
            caption=(
                f"and {sum(left.values())} more: {', '.join(f'{n} {state}' for state, n in left.items())}"
                if left
                else None
            ),
        )
        table.add_column("run", no_wrap=True, overflow="ellipsis", min_width=20)
        for heading in ("epoch", "train loss", f"{split} accuracy"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True, overflow="ellipsis")
        for row in shown:
            now = row.measured[-1] if row.measured else None
            table.add_row(
                row.name,
                f"{row.epochs}/{row.config.trainer.epochs}",
                f"{now.loss:.4f}" if now else "",
                "" if row.objective is None else f"{row.objective:.4f}",
                row.state + (" (best)" if row is best else ""),
                style="bold green" if row is best else None,
            )
        return table


def _line(array: _Array, epoch: Sequence[tuple[_Row, _Measured]]) -> str:
    """Return an array's epoch as a line: the figures of a single run, or the range of several runs'."""
    rows, measured = zip(*epoch, strict=True)
    best, _ = max(epoch, key=lambda pair: pair[1].objective)
    epochs, total = max(of.epochs for of in measured), max(row.config.trainer.epochs for row in rows)
    is_one = len(array.rows) == 1
    parts = [
        best.name if is_one else f"array {array.number} of {len(array.rows)} runs",
        f"epoch {epochs:>{len(str(total))}}/{total}",
        f"train loss {_range([of.loss for of in measured])} acc {_range([of.accuracy for of in measured])}",
    ]
    for split in measured[0].held_out:
        losses, accuracies = zip(*(of.held_out[split] for of in measured), strict=True)
        parts.append(f"{split} loss {_range(losses)} acc {_range(accuracies)}")
    if not is_one:
        parts.append(f"best {best.name}")
    # An array's time is divided among its runs.
    return "  ".join([*parts, f"{sum(of.seconds for of in measured):.1f} s"])


def _range(values: Sequence[float]) -> str:
    least, most = f"{min(values):.4f}", f"{max(values):.4f}"
    return least if least == most else f"{least} to {most}"
