"""Progress of a command's runs: a table and a bar in a terminal, lines elsewhere."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType, TracebackType
from typing import Self

from rich.console import Group
from rich.constrain import Constrain
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from lockstep.config.schema import RunConfig
from lockstep.results.history import History
from lockstep.terminal import console as terminal
from lockstep.terminal.notebook import NotebookLive
from lockstep.terminal.run_table import Measured, Row, run_table

REFRESHES_PER_SECOND = 2
"""Refreshes of the table and the bar. Each takes some milliseconds, and runs may train in this process."""

SPARE_LINES = 5
"""Lines of the terminal without runs: the table's header and caption, the bar, and room for the prompt."""

SHOWN_NAMES = 3
"""Runs that a line names which says where they train."""

CTRL_C_COLUMNS = 3
"""Columns kept free right of the bar for the terminal's ^C, which on a line of its own shifts the table."""


class _Array:
    """Runs that train together, and how many of their epochs were printed."""

    def __init__(self, number: int, rows: Sequence[Row]) -> None:
        self.number, self.rows, self._printed = number, rows, 0
        self._before = [len(row.measured) for row in rows]
        self._n_ready = 0  # the first rows, which are known to be ready for the next epoch

    def next(self) -> list[tuple[Row, Measured]] | None:
        """Take the next epoch to print, of each run that has it; None until every run has reported."""
        while self._n_ready < len(self.rows):
            if not self._is_ready(self._n_ready):
                return None
            self._n_ready += 1
        found = [
            (row, row.measured[before + self._printed])
            for row, before in zip(self.rows, self._before, strict=True)
            if len(row.measured) > before + self._printed
        ]
        if not found:
            return None
        self._printed, self._n_ready = self._printed + 1, 0
        return found

    def _is_ready(self, index: int) -> bool:
        row = self.rows[index]
        has_next = len(row.measured) > self._before[index] + self._printed
        return has_next or row.is_over or row.epochs >= row.config.trainer.epochs


class _TimeLeft:
    """The time until all epochs are trained: estimated after each epoch, running down between epochs."""

    def __init__(self) -> None:
        self._began_at = self._ends_at = 0.0
        self._n_trained = 0  # epochs, by this command

    def begin(self) -> None:
        self._began_at = self._began_at or time.monotonic()

    def epoch(self, n_left: int) -> None:
        """Note that one more epoch was trained, and how many are left."""
        self._n_trained += 1
        now = time.monotonic()
        self._ends_at = now + n_left * (now - self._began_at) / self._n_trained

    def __str__(self) -> str:
        if not self._n_trained:
            return "-:--:--"
        return str(timedelta(seconds=max(0, round(self._ends_at - time.monotonic()))))


class Progress:
    """Progress of a command's runs, in epochs.

    A terminal shows a bar, and for a sweep a table of runs above it, at most a screen high. Elsewhere, and
    for a single run, a line is printed for each epoch of each array.

    Args:
        epochs: the epochs of all runs, as far as known.
        is_sweep: whether the command may have several runs.
    """

    def __init__(self, epochs: int, is_sweep: bool) -> None:
        self._rows: dict[int, Row] = {}
        self._array_of: dict[int, _Array] = {}
        self._n_arrays, self._last = 0, ""
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TextColumn("{task.fields[left]}"),
        )
        self._epochs, self._done, self._left = epochs, 0, _TimeLeft()
        self._task = self._bar.add_task("starting", total=epochs, left=self._left)
        self._is_live = terminal.console.is_terminal or terminal.console.is_jupyter
        self._with_table = is_sweep and self._is_live
        self._live = (
            NotebookLive(self._below, REFRESHES_PER_SECOND)
            if terminal.console.is_jupyter
            else Live(
                get_renderable=self._below,
                console=terminal.console,
                transient=True,
                refresh_per_second=REFRESHES_PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
            )
        )

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()
            if kind is not None and self._with_table:  # what was reached stays on the screen
                terminal.console.print(self._table())
        if self._last:
            terminal.console.print(self._last, soft_wrap=True)

    def say_last(self, text: str) -> None:
        """Print a line below the table when it ends."""
        self._last = text

    def add(self, number: int, name: str, config: RunConfig) -> None:
        """Add a run."""
        self._rows[number] = Row(name, config)

    def array(self, numbers: Sequence[int]) -> None:
        """Show runs as training, together as an array."""
        self._n_arrays += 1
        array = _Array(self._n_arrays, [self._rows[number] for number in numbers])
        for number, row in zip(numbers, array.rows, strict=True):
            self._array_of[number] = array
            row.state = "training"
        self._left.begin()

    def place(self, numbers: Sequence[int], machine: str) -> None:
        """Show which machine of a cluster trains runs."""
        for number in numbers:
            self._rows[number].machine = machine
        if not self._with_table:
            names = ", ".join(self._rows[number].name for number in numbers[:SHOWN_NAMES])
            more = f" and {len(numbers) - SHOWN_NAMES} more" if len(numbers) > SHOWN_NAMES else ""
            terminal.console.print(f"on {machine}: {names}{more}", soft_wrap=True)

    def resume(self, number: int, history: History) -> None:
        """Show the epochs of a run that an earlier command trained."""
        if history.epochs and history.diverged_at is None:
            self._rows[number].measured.append(Measured.of(history))
            self._done += history.epochs

    def epoch(self, number: int, history: History) -> None:
        """Show a run's last epoch, or that it diverged."""
        row = self._rows[number]
        if history.diverged_at is not None:
            self._set_over(row, "diverged")
            terminal.console.print(f"{row.name}  diverged at iteration {history.diverged_at}", soft_wrap=True)
        else:
            self._done += history.epochs - row.epochs
            row.measured.append(Measured.of(history))
        self._left.epoch(self._epochs - self._done)
        self._bar.update(self._task, description="training")
        self._print(number)

    def end(self, number: int, state: str, metrics: Mapping[str, float] = MappingProxyType({})) -> None:
        """Show that a run has ended.

        Args:
            state: why, in a word.
            metrics: its last ones.
        """
        accuracy = metrics.get("val/accuracy", metrics.get("test/accuracy"))
        self._set_over(self._rows[number], state)
        self._rows[number].final = accuracy
        self._print(number)

    def _set_over(self, row: Row, state: str) -> None:
        if not row.is_over:
            self._done += row.config.trainer.epochs - row.epochs
        row.state = state

    def _print(self, number: int) -> None:
        """Print a line for each epoch that all runs of the run's array have completed."""
        array = self._array_of.get(number)
        while array is not None and not self._with_table and (epoch := array.next()):
            terminal.console.print(_line(array, epoch), soft_wrap=True)

    def _below(self) -> Group:
        self._bar.update(self._task, completed=self._done)
        bar = Constrain(self._bar, terminal.console.width - CTRL_C_COLUMNS)
        return Group(self._table(), bar) if self._with_table else Group(bar)

    def _table(self) -> Table:
        height, width = terminal.console.height - SPARE_LINES, terminal.console.width
        return run_table(list(self._rows.values()), height, width)


def _line(array: _Array, epoch: Sequence[tuple[Row, Measured]]) -> str:
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
