"""Signals that come while something is written, in real processes."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from lockstep.recovery.interrupts import deferred, listen

listen()
send = lambda: os.kill(os.getpid(), {number})
try:
    with deferred():
        with deferred():
            send()
            print("inner", flush=True)
        print("outer", flush=True)
        if "again" in sys.argv:
            send()
            print("torn", flush=True)
    print("after", flush=True)
finally:
    with deferred():
        print("recorded", flush=True)
"""


def run(number, *args):
    program = PROGRAM.format(number=int(number))
    command = [sys.executable, "-c", program, *args]
    default = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=default)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_takes_effect_when_all_is_written(number, code):
    ended = run(number)
    assert ended.stdout.split() == ["inner", "outer", "recorded"]
    assert ended.returncode == code
    assert ("KeyboardInterrupt" in ended.stderr) == (number == signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(number):
    ended = run(number, "again")
    assert ended.stdout.split() == ["inner", "outer"]
    assert ended.returncode == 128 + number
    assert ended.stderr.startswith("interrupted again")


def test_an_ignored_interrupt_stays_ignored():
    command = [sys.executable, "-c", PROGRAM.format(number=int(signal.SIGINT))]
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=ignore)
    assert ended.stdout.split() == ["inner", "outer", "after", "recorded"]
    assert ended.returncode == 0
