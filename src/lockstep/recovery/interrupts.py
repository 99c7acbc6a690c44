"""Signals that end a command wait for what must not be torn.

Where Ctrl-C breaks into a write to an SQLite store, the transaction stays open, and whatever the command
has still to write about its end waits for the lock that it holds itself.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_depth = 0
_waiting: int | None = None


def listen() -> None:
    """Make SIGTERM end a command as Ctrl-C does: Python unwinds, what is under way is recorded as KILLED."""
    signal.signal(signal.SIGTERM, _heard)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as by nohup
        signal.signal(signal.SIGINT, _heard)


@contextmanager
def deferred() -> Iterator[None]:
    """A signal that comes meanwhile takes effect at the end; a second one ends the process at once."""
    global _depth, _waiting
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0 and _waiting is not None:
            number, _waiting = _waiting, None
            _end(number)


def _heard(number: int, _frame: FrameType | None) -> None:
    global _waiting
    if _depth == 0:
        _end(number)
    if _waiting is not None:  # a tracking server that is gone can keep a write waiting for minutes
        print("interrupted again; what was being recorded may be incomplete", file=sys.stderr, flush=True)
        os._exit(128 + number)
    _waiting = number


def _end(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
