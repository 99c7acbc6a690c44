"""Python commands as processes of their own, forked from one that has imported torch and MLflow. So are their
workers: it takes a second instead of six. For tests of what a command does; those of how it starts and ends
start real ones."""

import atexit
import io
import logging
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lockstep.execution import pool, server

TESTS = Path(__file__).parents[1]

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.export",
        "mlflow.pytorch",
        "mlflow.store.tracking.sqlalchemy_store",
        "sklearn.datasets",
        *("sklearn.decomposition", "sklearn.metrics", "sklearn.neighbors"),
        *("lockstep.execution.task_training", "lockstep.pictures.run_pictures", "scipy.signal"),
        "hydra.main",
        "optuna",
        "plotly.graph_objects",
        "lockstep.sweep.session",
        "lockstep.search.session",
        *("lockstep.report.page", "lockstep.cli.command", "sqlalchemy.dialects.sqlite"),
        *("torch.export._trace", "torch.export.pt2_archive._package"),
    ]
)


def start(function, *arguments):
    """Call a function in such a process."""
    process = _server.Process(target=function, args=arguments)
    process.start()
    return process


class Started:
    """`python <words>` in a folder, as subprocess.Popen has it with pipes for what it prints."""

    def __init__(self, words, folder, environment):
        self.words = words
        with tempfile.TemporaryDirectory() as name:
            pipes = [Path(name) / stream for stream in ("stdout", "stderr")]
            for pipe in pipes:
                os.mkfifo(pipe)
            self._process = start(_main, words, folder, environment, pipes)
            self.stdout, self.stderr = (pipe.open() for pipe in pipes)
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.words, timeout)
        return self._process.exitcode

    def communicate(self, timeout=None):
        with self.stdout, self.stderr, ThreadPoolExecutor(2) as readers:
            read = [readers.submit(pipe.read) for pipe in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return tuple(text.result() for text in read)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(words, folder, environment, timeout=240):
    """`python <words>` in a folder; as subprocess.run has it."""
    started = Started(words, folder, environment)
    with started.stdout, started.stderr:
        out, err = started.communicate(timeout)
    return subprocess.CompletedProcess(words, started.returncode, out, err)


def _main(words, folder, environment, pipes):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    for descriptor, pipe in zip((1, 2), pipes, strict=True):
        opened = os.open(pipe, os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    # The server's are files, where a position can be asked for.
    sys.stdout, sys.stderr = (open_text(descriptor) for descriptor in (1, 2))
    logging.getLogger().handlers.clear()  # mlflow.pytorch's; a command loads it later, and adds none by then
    # Hydra looks for plugins in all folders named hydra_plugins: not in tests/hydra_plugins.
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path) != TESTS)]
    pool._Server = _ForkedServer
    try:
        if words[0] == "-c":
            exec(compile(words[1], "<script>", "exec"), {"__name__": "__main__"})
        elif words[0] == "-m":
            sys.argv = list(words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing's processes leave them out


class _ForkedServer:
    """A command's fork server, forked from the command."""

    def __init__(self):
        self.requests, theirs = socket.socketpair()
        command, self._pid = os.getpid(), os.fork()
        if self._pid == 0:
            self.requests.close()
            server.run(theirs, command, ())
        theirs.close()
        self.process = self

    def poll(self):
        return None if os.waitpid(self._pid, os.WNOHANG) == (0, 0) else 0

    def kill(self):
        os.kill(self._pid, signal.SIGKILL)

    def wait(self):
        os.waitpid(self._pid, 0)


def open_text(descriptor):
    file = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(file), line_buffering=descriptor == 2)
