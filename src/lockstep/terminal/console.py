"""The console that everything is printed on, and the log."""

import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

from rich.console import Console

FILE_WIDTH = 1000
"""The longest line of a table in a file or a pipe, in characters."""


class PlainConsole(Console):
    """A console that shows text as it is: names may hold brackets, colons, or control characters.

    It turns quiet when output fails (a closed pipe, a full disk): the sweep continues.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        shown = ("\n".join(map(printable, o.split("\n"))) if isinstance(o, str) else o for o in objects)
        try:
            super().print(*shown, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's flush fails at exit


console = PlainConsole()


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Show on a terminal what takes a moment, until the block ends."""
    with console.status(what, refresh_per_second=4) if console.is_terminal else nullcontext():
        yield


class _ToConsole(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console.print(self.format(record), soft_wrap=True)


def printable(text: str) -> str:
    """Return a text with control characters, which might move the cursor, as escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_streams() -> None:
    """Make the standard streams usable.

    A closed one discards what it gets; else the next file that is opened, such as the store, would take its
    number and get what libraries print. Characters that the terminal lacks are printed as question marks.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
            os.set_inheritable(number, True)  # worker processes need it, too
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = FILE_WIDTH  # else tables leave out what has no room on 80 columns
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def show_log() -> None:
    """Print Lockstep's log messages, from `info` up, on the console, and each warning of a library once."""
    log = logging.getLogger("lockstep")
    log.setLevel(logging.INFO)
    if not any(isinstance(handler, _ToConsole) for handler in log.handlers):
        log.addHandler(_ToConsole())
        # mlflow.pytorch calls logging.basicConfig, which prints all messages again unless root has a handler.
        logging.getLogger().addHandler(logging.NullHandler())
    warnings.showwarning = _log_warning  # type: ignore[assignment]
    threading.excepthook = _log_thread_error


@contextmanager
def shown_log() -> Iterator[None]:
    """Do as `show_log` in the block, in a process whose log and warnings belong to somebody else."""
    log, root = logging.getLogger("lockstep"), logging.getLogger()
    before = log.level, log.handlers[:], root.handlers[:], threading.excepthook
    try:
        with warnings.catch_warnings():
            show_log()
            yield
    finally:
        log.setLevel(before[0])
        log.handlers[:], root.handlers[:], threading.excepthook = before[1:]


@cache
def warn_once(text: str) -> None:
    """Log a warning of a library, unless it was logged before."""
    logging.getLogger("lockstep").warning(text)


def _log_thread_error(ended: threading.ExceptHookArgs) -> None:
    """Log a thread that ended with an error, in one line. Python would print a traceback, also at exit."""
    name = ended.thread.name if ended.thread else "a thread"
    error = f"{ended.exc_type.__name__}: {ended.exc_value}"
    logging.getLogger("lockstep").error("%s ended with an error: %s", name, error)


def _log_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    warn_once(f"{category.__name__}: {message}")
