"""Processes, found in /proc."""

import time
from contextlib import suppress
from pathlib import Path


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid):
    """The children of a process: their command lines and names."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found[int(path.name)] = (path / "cmdline").read_text() + (path / "comm").read_text()
    return found


def fork_servers(pid):
    names = ("lockstep.execution.server", "fork server")  # the latter's are forked's
    return {child for child, line in children(pid).items() if any(name in line for name in names)}


def workers_of(pid):
    """The worker processes of a process, which its fork server has forked."""
    return set().union(*(children(server) for server in fork_servers(pid)))


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
