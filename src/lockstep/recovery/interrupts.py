"""Interrupt signals, deferred during writes that must not be cut short.

Where Ctrl-C interrupts a write to an SQLite store, the transaction stays open, and the command's last writes
would wait for a lock that the command itself holds.
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
    """Make SIGTERM end a command like Ctrl-C: Python unwinds and unfinished runs are recorded as KILLED."""
    signal.signal(signal.SIGTERM, _on_signal)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as nohup does
        signal.signal(signal.SIGINT, _on_signal)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer a signal to the end of the block; a second signal ends the process at once."""
    global _depth, _waiting
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0 and _waiting is not None:
            number, _waiting = _waiting, None
            _end(number)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _waiting
    if _depth == 0:
        _end(number)
    if _waiting is not None:  # a write to an unreachable tracking server can block for minutes
        print("interrupted again; what was being recorded may be incomplete", file=sys.stderr, flush=True)
        os._exit(128 + number)
    _waiting = number


def _end(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
