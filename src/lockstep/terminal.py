"""What the person at the terminal sees while runs train: lines, and a bar where there is a terminal."""

import logging
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from lockstep.config import RunConfig

if TYPE_CHECKING:
    from lockstep.train import History  # which loads torch


class _Console(Console):
    """Falls silent where nobody can read on (a closed pipe, a full disk): a sweep doesn't end for that."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own flush fails at exit


console = _Console(highlight=False)


class Progress:
    """Progress of a command's runs, counted in epochs; prints a line for each epoch of each run."""

    def __init__(self, epochs: int) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("training", total=epochs)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def skip(self, epochs: int) -> None:
        """So many epochs need not be trained."""
        self._bar.advance(self._task, epochs)

    def epoch(self, name: str, config: RunConfig, history: "History") -> None:
        """An epoch of the run is over: print its means, the evaluations after it, the time trained so far."""
        self._bar.advance(self._task)
        if history.diverged_at is not None:
            console.print(
                f"{name}  diverged at iteration {history.diverged_at}", soft_wrap=True, markup=False
            )
            return
        iterations, epochs = len(history.loss_T) // history.epochs, config.trainer.epochs
        parts = [
            name,
            f"epoch {history.epochs:>{len(str(epochs))}}/{epochs}",
            f"train loss {history.loss_T[-iterations:].mean():.4f}"
            f" acc {history.accuracy_T[-iterations:].mean():.4f}",
        ]
        for split in ("val", "test"):
            if evaluations := history.of(split):
                parts.append(f"{split} loss {evaluations[-1].loss:.4f} acc {evaluations[-1].accuracy:.4f}")
        console.print("  ".join([*parts, f"{history.seconds:.1f} s"]), soft_wrap=True, markup=False)


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.print(self.format(record), soft_wrap=True, markup=False)


def show_log() -> None:
    """Print Lockstep's own log messages, from `info` up, on the console."""
    log = logging.getLogger("lockstep")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToConsole) for handler in log.handlers):
        log.addHandler(_ToConsole())
