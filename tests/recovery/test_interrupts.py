"""Signals that come before, while and after runs are recorded, in real processes."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from lockstep.recovery import interrupts

PROGRAM = """
import json, os, signal, sys, threading, time
from lockstep.recovery import interrupts
from lockstep.recovery.interrupts import deferred, recording

def act(number, moments):
    interrupts.listen()

    def send(moment):
        if moment in moments:
            print(moment, flush=True)
            os.kill(os.getpid(), number)

    def blocked():  # a wait that no signal interrupts, as for SQLite's lock
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        threading.Thread(target=lambda: os.kill(os.getpid(), number), daemon=True).start()
        time.sleep(60)

    send("before")
    with recording():
        try:
            with deferred():
                with deferred():
                    send("inner")
                    send("together")
                print("outer", flush=True)
            send("plain")
            print("after", flush=True)
        except BaseException as error:
            with deferred():
                print(repr(error), flush=True)
                if "again" in moments:
                    time.sleep(0.6)
                    send("again")
                    time.sleep(1)
                if "blocked" in moments:
                    time.sleep(0.6)
                    blocked()
            raise
    send("end")

def main(number, moments, is_ignored):
    for descriptor, name in (1, "out"), (2, "err"):
        os.dup2(os.open(f"{moments} {number} {name}", os.O_WRONLY | os.O_CREAT), descriptor)
    # The tests' own process may ignore a signal: in the background, or under nohup.
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, signal.SIG_IGN if is_ignored else default)
    try:
        act(number, moments.split())
    except BaseException:
        if not interrupts.has_come():
            raise
        interrupts.leave("in order")

pids = []
for case in json.loads(sys.argv[1]):
    pids.append(os.fork())
    if not pids[-1]:
        try:
            main(*case)
        finally:
            os._exit(0)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]))
"""

AT_ONCE = "interrupted; the same command goes on from here"
AGAIN = "interrupted again; the same command goes on from here"
WAYS = [
    ("before", "before", AT_ONCE),
    ("end", "outer after end", AT_ONCE),
    ("plain", "outer plain RAISED", "in order"),
    ("inner", "inner outer RAISED", "in order"),
    ("inner together", "inner together outer RAISED", "in order"),
    ("plain again", "outer plain RAISED again", AGAIN),
    ("plain blocked", "outer plain RAISED", AGAIN),
]
"""The moments of signals, what is printed then, and the last words."""

RAISED = {
    signal.SIGTERM: "SystemExit(143)",
    signal.SIGHUP: "SystemExit(129)",
    signal.SIGINT: "KeyboardInterrupt()",
}
ALL = "before inner plain end"


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Programs that got signals, all at once: what each printed, its last words, its exit code."""
    folder = tmp_path_factory.mktemp("programs")
    cases = [(number, moments, False) for number in RAISED for moments, _, _ in WAYS]
    cases += [(number, ALL, True) for number in RAISED]
    command = [sys.executable, "-c", PROGRAM, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, check=True)

    def text(number, moments, name):
        return (folder / f"{moments} {int(number)} {name}").read_text()

    return {
        (number, moments): (text(number, moments, "out"), text(number, moments, "err"), code)
        for (number, moments, _), code in zip(cases, json.loads(done.stdout), strict=True)
    }


@pytest.mark.parametrize("number", RAISED)
@pytest.mark.parametrize(("moments", "printed", "said"), WAYS)
def test_a_signal_ends_the_process_in_order_or_at_once(ended, number, moments, printed, said):
    out, err, code = ended[number, moments]
    assert out.split() == printed.replace("RAISED", RAISED[number]).split()
    assert (err, code) == (f"{said}\n", 128 + number)


@pytest.mark.parametrize("number", RAISED)
def test_an_ignored_signal_stays_ignored(ended, number):
    out, err, code = ended[number, ALL]
    assert out.split() == ["before", "inner", "outer", "plain", "after", "end"]
    assert (err, code) == ("", 0)


@pytest.mark.parametrize(("kind", "restored"), [("xterm", interrupts.CURSOR_BACK), ("dumb", b"")])
def test_a_terminal_that_showed_progress_gets_its_cursor_back(kind, restored):
    controller, terminal = pty.openpty()
    program = "from lockstep.recovery import interrupts; interrupts.leave('ended', 2)"
    environment = os.environ | {"TERM": kind}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=terminal, stderr=terminal, env=environment, timeout=60
    )
    os.close(terminal)
    with open(controller, "rb", buffering=0) as screen:
        assert (screen.read(1000), done.returncode) == (b"ended\r\n" + restored, 130)
