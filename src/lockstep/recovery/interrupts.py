"""Interrupt signals: while runs are recorded, the first ends the command in order, and a second one at once.

At any other time the first one ends it at once: there is nothing to put in order, and an exception may come
out of any library as another one. Nothing that a command does must not be cut short by a kill.
"""

import os
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

TOGETHER_SECONDS = 0.25
"""Signals that come together are one: `timeout`, say, sends its signal to the process and to its group."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

RESUME = "the same command goes on from here"

CURSOR_BACK = b"\r\x1b[K\x1b[?25h"
"""Clears the terminal's line and shows the cursor, which a display of progress hides as long as it lives."""

_is_recording = False
_came: int | None = None  # the signal that came while runs were recorded
_depth = 0
_waiting: int | None = None


def listen() -> None:
    """Let SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed) end this process, as the module says.

    A second signal is seen by a thread: the main thread may be in a call that no signal interrupts, such as a
    wait for SQLite's lock.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup does
            signal.signal(number, _on_signal)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


@contextmanager
def recording() -> Iterator[None]:
    """Have a signal end the block as an exception: KeyboardInterrupt, or SystemExit for others."""
    global _is_recording
    _is_recording = True
    try:
        yield
    finally:
        _is_recording = False


@contextmanager
def deferred() -> Iterator[None]:
    """Defer the exception to the end of the block, which writes what must not be cut short.

    Where Ctrl-C interrupts a write to an SQLite store, the transaction stays open, and the command's last
    writes would wait for a lock that the command itself holds.
    """
    global _depth, _waiting
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0 and _waiting is not None:
            number, _waiting = _waiting, None
            _end(number)


def has_come() -> bool:
    """Tell whether a signal ends the command in order."""
    return _came is not None


def leave(message: str, number: int | None = None) -> NoReturn:
    """End the process at once, with a message: threads of libraries may still wait for a store.

    Args:
        number: the signal that ends it, None for the one that has come.
    """
    with suppress(OSError, ValueError, RuntimeError):  # a closed pipe; another thread is printing
        sys.stdout.flush()
        if sys.stderr.isatty():
            message = textwrap.fill(message, shutil.get_terminal_size().columns)
        print(message, file=sys.stderr, flush=True)
        if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            os.write(1, CURSOR_BACK)
    os._exit(128 + (number or _came or 0))


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _came, _waiting
    if _came is not None:
        return  # `_watch` sees to it
    if not _is_recording:
        leave(f"interrupted; {RESUME}", number)
    _came = number
    if _depth == 0:
        _end(number)
    _waiting = number


def _watch(reader: int) -> None:
    first = 0.0
    while True:
        for number in os.read(reader, 64):
            if number not in SIGNALS:
                continue
            first = first or time.monotonic()
            if time.monotonic() - first > TOGETHER_SECONDS:
                leave(f"interrupted again; {RESUME}", number)


def _end(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
