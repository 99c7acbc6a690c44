"""The console that everything is printed on, and the log."""

import logging
import os
import sys
from typing import Any

from rich.console import Console


class _Console(Console):
    """A console that turns quiet when output fails (a closed pipe, a full disk): the sweep continues."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's flush fails at exit


console = _Console(highlight=False)


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.print(self.format(record), soft_wrap=True, markup=False)


def show_log() -> None:
    """Print Lockstep's own log messages, from `info` up, on the console."""
    log = logging.getLogger("lockstep")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToConsole) for handler in log.handlers):
        log.addHandler(_ToConsole())
        # mlflow.pytorch calls logging.basicConfig, which prints all messages again unless root has a handler.
        logging.getLogger().addHandler(logging.NullHandler())
