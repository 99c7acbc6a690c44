"""The terminal: what is printed on it, and the log."""

import logging
import os
import sys
from typing import Any

from rich.console import Console


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


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.print(self.format(record), soft_wrap=True, markup=False)


def show_log() -> None:
    """Print Lockstep's own log messages, from `info` up, on the console."""
    log = logging.getLogger("lockstep")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToConsole) for handler in log.handlers):
        log.addHandler(_ToConsole())
        # mlflow.pytorch calls logging.basicConfig, which prints all of it again unless root has a handler.
        logging.getLogger().addHandler(logging.NullHandler())
