"""The worker processes of this machine: started, reused, ended. Light: torch is loaded in the workers only.

Workers are forked by a fork server (see `server`): a process that loads torch, scikit-learn and matplotlib
once, while the command loads what it needs itself. Two workers are ready in half the time and half the CPU
time of two that each load for themselves.

The processes are connected by pipes without names: no other process can connect to them, and nothing is left
of them, however they end. The kernel kills the server when the command ends, and the workers with the server.
multiprocessing and loky have semaphores in /dev/shm and sockets in /tmp, which a kill of the group leaves.
"""

import atexit
import multiprocessing.connection
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any

from lockstep.execution.server import FROM_TERMINAL

ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # glibc keeps memory that is freed: else it would be mapped anew for each step of a convolution.
    **{"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)},
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # a process that forks has one thread
    "PYTHONSAFEPATH": "1",
}
"""Of each worker process, from its start on."""

TRAINING = (
    "lockstep.execution.task_training",
    *("sklearn.decomposition", "sklearn.metrics", "sklearn.neighbors"),
)
DRAWING = ("lockstep.pictures.run_pictures", "scipy.signal")

_modules: Sequence[str] = TRAINING  # that the server loads
_server: "_Server | None" = None
_is_started = False  # by `start`
_workers: list["Worker"] = []
_submitting = threading.Lock()


class WorkerDied(Exception):
    """A worker ended before it had returned a result."""


class Worker:
    """A worker process, which carries out one call at a time.

    Attributes:
        is_aside: whether it is the one beside those that train, see `aside`.
        results: can be read once there is a result, or the worker has ended.
    """

    def __init__(self, server: "_Server", is_aside: bool) -> None:
        self.is_aside = is_aside
        calls, self._calls = Pipe(duplex=False)
        self.results, results = Pipe(duplex=False)
        self.is_busy = False
        with calls, results, suppress(OSError):  # where the server has just died, so has this worker
            socket.send_fds(server.requests, [b"1"], [calls.fileno(), results.fileno()])

    def submit(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function in the worker, which must not be busy."""
        self.is_busy = True
        with suppress(BrokenPipeError):  # it has died, which `result` tells
            self._calls.send((function, arguments))

    def result(self) -> Any:
        """Return what the function returned, once it has.

        Raises:
            WorkerDied: if the worker ended before.
        """
        try:
            returned = self.results.recv()
        except (EOFError, OSError) as error:
            self.end()
            raise WorkerDied from error
        self.is_busy = False
        return returned

    @property
    def has_died(self) -> bool:
        """Whether it has ended while it was not busy."""
        return self.results.poll()

    def end(self) -> None:
        """Have the worker end at once, and wait until it has."""
        self._calls.close()
        with suppress(EOFError, OSError):
            while True:
                self.results.recv_bytes()  # until it is closed, by the worker's end
        self.results.close()
        _workers.remove(self)


class _Server:
    """The fork server's process."""

    def __init__(self) -> None:
        self.requests, theirs = socket.socketpair()
        command = [sys.executable, "-m", "lockstep.execution.server", str(theirs.fileno()), str(os.getpid())]
        # glibc asks for huge pages: a step is 5 % quicker with them.
        tunables = os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
        path = os.pathsep.join(filter(None, sys.path))
        # It ignores Ctrl-C from its first moment on.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, FROM_TERMINAL)
        try:
            self.process = subprocess.Popen(
                [*command, *_modules],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **ENVIRONMENT, "GLIBC_TUNABLES": tunables, "PYTHONPATH": path},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()


def start(modules: Sequence[str]) -> None:
    """Start the fork server unless it is there; it loads what workers need while this process goes on.

    From now on this process leaves all that needs torch to workers.
    """
    global _modules, _server, _is_started
    if not _is_started:
        shut_down()
        _modules, _is_started = modules, True
        _server = _Server()


def submit(function: Callable[..., object], *arguments: object) -> Worker:
    """Call a function in a worker that trains, and return this worker."""
    with _submitting:  # tasks of a cluster come from several threads
        free = worker()
        free.submit(function, *arguments)
    return free


def is_started() -> bool:
    """Tell whether this process leaves all that needs torch to workers."""
    return _is_started


def worker(is_aside: bool = False) -> Worker:
    """Return a worker that is not busy: one that is there, or a new one.

    Args:
        is_aside: return the one beside those that train, which may be busy.
    """
    global _server
    for there in [worker for worker in _workers if worker.is_aside == is_aside]:
        if there.is_busy:
            if is_aside:
                return there
        elif not there.has_died:
            return there
        else:
            there.end()
    if _server is not None and _server.process.poll() is not None:  # it has died, and its workers with it
        _server.requests.close()
        _server = None
    _server = _server or _Server()
    _workers.append(Worker(_server, is_aside))
    return _workers[-1]


def wait(workers: Collection[Worker], seconds: float) -> list[Worker]:
    """Return the busy workers that have a result or have died, once there is one or the time is over."""
    ready = multiprocessing.connection.wait([worker.results for worker in workers], seconds)
    return [worker for worker in workers if worker.results in ready]


@atexit.register
def shut_down() -> None:
    """Kill the workers, whatever they do; return when none of them writes any more."""
    global _server, _is_started
    _is_started = False
    if _server is not None:
        _server.requests.close()
        _server.process.kill()
        _server.process.wait()
        _server = None
    for worker in [*_workers]:
        worker.end()
