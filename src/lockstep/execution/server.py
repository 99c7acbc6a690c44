"""The fork server, a process of its own: it loads modules once, then forks a worker for each request.

`pool` starts it, as `python -m lockstep.execution.server <socket> <process id of the command> <module> ...`.
"""

import ctypes
import faulthandler
import gc
import importlib
import os
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from lockstep.execution import library_warnings

FROM_TERMINAL = (signal.SIGINT, signal.SIGHUP)
"""Signals that a terminal sends to all processes of a command: the command's own process decides."""

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl(2)."""


def serve(requests: socket.socket) -> None:
    """Fork a worker for each request, until the command closes its end of the socket.

    A request contains the two descriptors that the worker talks to the command with: calls, results.
    """
    own = os.getpid()
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, 1, 2)
        if not message:
            return
        if os.fork() == 0:
            try:
                requests.close()
                end_with(own)
                work(*map(Connection, descriptors))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)


def work(calls: Connection, results: Connection) -> None:
    """Be a worker: carry out calls, functions with their arguments, one at a time."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    faulthandler.enable()
    warnings.showwarning = library_warnings.keep  # type: ignore[assignment]
    gc.freeze()  # what the server loaded
    gc.enable()
    received = SimpleQueue[Any]()

    def receive() -> None:
        try:
            while True:
                received.put(calls.recv())
        except EOFError:
            pass  # the command has closed its end, or has ended: end at once, whatever is being done
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        function, arguments = received.get()
        results.send(function(*arguments))


def end_with(parent: int) -> None:
    """Have the kernel kill this process, even a stopped one, when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def run(requests: socket.socket, command: int, modules: Iterable[str]) -> None:
    """Be the fork server until the command ends.

    Args:
        command: its process id.
    """
    for number in FROM_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FROM_TERMINAL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # workers that end leave nothing to wait for
    end_with(command)
    gc.disable()  # it finds nothing here, and would write to memory that the workers share
    for module in modules:
        importlib.import_module(module)
    serve(requests)
    os._exit(0)


if __name__ == "__main__":
    descriptor, command, *modules = sys.argv[1:]
    run(socket.socket(fileno=int(descriptor)), int(command), modules)
