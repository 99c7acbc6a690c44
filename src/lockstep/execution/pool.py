"""The worker processes of this machine: started, reused, ended. Light: torch is loaded in the workers only.

Workers are processes that loky keeps. For a command they are forked by a fork server: a process that loads
torch, scikit-learn and matplotlib once, while the command loads what it needs itself. Two workers are ready
in half the time and half the CPU time of two that each load for themselves. A Python program that calls
Lockstep has no such server: multiprocessing has one per process, which would run the program's main script
again, and change how the program's own processes start.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext

from loky import ProcessPoolExecutor

ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # a process that forks has one thread
    "LOKY_MAX_MEMORY_LEAK_SIZE": str(2**62),  # loky would end a worker that has mapped a large data set
}
"""Of each worker process, from its start on."""

DRAWING = ("lockstep.pictures.run_pictures", "scipy.signal")

_context: BaseContext | None = None  # None: loky's own way to start a process
_pool: tuple[int, ProcessPoolExecutor, Connection] | None = None


def start(draw: bool) -> None:
    """Start the fork server, which loads what workers need while this process goes on.

    Args:
        draw: whether workers are to draw pictures.
    """
    global _context
    _context = multiprocessing.get_context("forkserver")
    # The main script too, or each worker would import it.
    _context.set_forkserver_preload(["__main__", "lockstep.execution.preload", *(DRAWING if draw else ())])
    _run_server()


def executor(n: int) -> ProcessPoolExecutor:
    """Return the executor with n workers: the same one until it is shut down."""
    global _pool
    if _pool is not None and _pool[0] != n:
        shut_down()
    if _pool is None:
        if _context is not None:
            _run_server()
        reader, writer = multiprocessing.Pipe(duplex=False)
        workers = ProcessPoolExecutor(
            n, context=_context, initializer=_begin, initargs=(reader,), env=_environment()
        )
        _pool = n, workers, writer
    return _pool[1]


def shut_down(kill: bool = False) -> None:
    """End the workers, if there are any: when they are done, or at once."""
    global _pool
    if _pool is not None:
        _, workers, writer = _pool
        _pool = None
        workers.shutdown(wait=True, kill_workers=kill)
        writer.close()


def _environment() -> dict[str, str]:
    # glibc asks for huge pages: a step is 5 % quicker with them.
    return {**ENVIRONMENT, "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")}


def _run_server() -> None:
    """Start the fork server, unless it is running."""
    resource_tracker.ensure_running()  # before signals are blocked, as it unblocks them
    path = os.pathsep.join(filter(None, sys.path))
    own = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "LOCKSTEP_COMMAND": str(os.getpid())}
    with _inherited(_environment() | own):
        forkserver.ensure_running()


@contextmanager
def _inherited(environment: dict[str, str]) -> Iterator[None]:
    """Let processes started meanwhile have this environment, and ignore Ctrl-C from their first moment on."""
    before = {key: os.environ.get(key) for key in environment}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(environment)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(command: Connection) -> None:
    """Begin to be a worker: end at once when the command does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the command decides
    from lockstep.execution.task import keep_warning  # here, because it loads torch

    warnings.showwarning = keep_warning  # type: ignore[assignment]
    gc.freeze()  # what the fork server loaded, see preload
    gc.enable()

    def watch() -> None:
        try:
            command.poll(None)  # until the other end is closed
        finally:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
