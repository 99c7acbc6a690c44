"""Python commands as processes of their own, forked from one that has imported torch and MLflow already: one
second instead of six. So is the fork server that a command starts for its workers. For tests of what a
command does; those of how it starts and ends start real ones.

pytest's workers share the process that forks, which `python tests/helpers/forked.py <socket>` starts.
"""

import atexit
import importlib
import io
import logging
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from helpers.processes import until

from lockstep.execution import pool, server

TESTS = Path(__file__).parents[1]
ADDRESS = "TESTS_FORK_AT"
"""In the environment: the socket of the process that forks."""

PRELOADED = (
    *("torch._dynamo", "torch.export._trace", "torch.export.pt2_archive._package", "mlflow.pytorch"),
    *("mlflow.store.tracking.sqlalchemy_store", "sqlalchemy.dialects.sqlite", "hydra.main", "optuna"),
    *("sklearn.datasets", "sklearn.decomposition", "sklearn.metrics", "sklearn.neighbors", "scipy.signal"),
    *("plotly.graph_objects", "lockstep.sweep.session", "lockstep.search.session", "lockstep.cli.command"),
    *("lockstep.execution.task_training", "lockstep.pictures.run_pictures", "lockstep.report.page"),
)


def start_server():
    """Start the process that forks, for this process and those that it starts; it ends with this process."""
    folder = tempfile.mkdtemp()
    os.environ[ADDRESS] = f"{folder}/socket"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true"}  # as of commands, which import MLflow later
    command = [sys.executable, __file__, os.environ[ADDRESS]]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    atexit.register(shutil.rmtree, folder)
    atexit.register(started.communicate)


def _serve(address):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in PRELOADED:
        with suppress(ImportError):  # of a torch that has it elsewhere
            importlib.import_module(module)
    fork, running = multiprocessing.get_context("fork"), {}
    with socket.socket(socket.AF_UNIX) as asked:
        asked.bind(f"{address}.new")
        asked.listen(64)
        os.rename(f"{address}.new", address)
        while True:
            for ready in wait([sys.stdin, asked, *running]):
                if ready is sys.stdin:  # closed
                    return
                if ready is asked:
                    client = Connection(asked.accept()[0].detach())
                    function, arguments = client.recv()
                    process = fork.Process(target=function, args=arguments)
                    process.start()
                    client.send(process.pid)
                    running[process.sentinel] = process, client
                else:
                    process, client = running.pop(ready)
                    process.join()
                    with suppress(OSError):  # nobody waits
                        client.send(process.exitcode)
                    client.close()


class Process:
    """A function's call in a process that is forked; once started, as multiprocessing.Process has it."""

    def __init__(self, function, *arguments):
        if ADDRESS not in os.environ:
            start_server()
        until(lambda: os.path.exists(os.environ[ADDRESS]), seconds=300)
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(os.environ[ADDRESS])
        self._connection = Connection(connected.detach())
        self._connection.send((function, arguments))
        self.pid, self._exitcode = self._connection.recv(), None

    @property
    def exitcode(self):
        self.join(0)
        return self._exitcode

    def join(self, timeout=None):
        if self._exitcode is None and self._connection.poll(timeout):
            self._exitcode = self._connection.recv()
            self._connection.close()

    def kill(self):
        if self.exitcode is None:
            os.kill(self.pid, signal.SIGKILL)


class Started:
    """`python <words>` in a folder, as subprocess.Popen has it with pipes for what it prints."""

    def __init__(self, words, folder, environment):
        self.words = words
        with tempfile.TemporaryDirectory() as name:
            pipes = [Path(name) / stream for stream in ("stdout", "stderr")]
            for pipe in pipes:
                os.mkfifo(pipe)
            self._process = Process(_main, words, folder, environment, pipes)
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
            Path("/proc/self/comm").write_text("fork server")  # for processes.fork_servers
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


if __name__ == "__main__":
    _serve(sys.argv[1])
