"""Python commands as processes of their own, forked from one that has imported torch and MLflow already: two
seconds instead of six. So is the fork server that a command starts for its workers. For tests of what a command
does; those of how it starts and ends start real ones."""

import atexit
import io
import logging
import multiprocessing
import os
import pickle
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

TESTS = Path(__file__).parents[1]

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.export",
        "mlflow.pytorch",
        "mlflow.store.tracking.sqlalchemy_store",
        "sklearn.datasets",
        "hydra.main",
        "optuna",
        "plotly.graph_objects",
        "lockstep.sweep.session",
        "lockstep.search.session",
        *("lockstep.execution.workers", "sklearn.decomposition", "sklearn.metrics", "sklearn.neighbors"),
        *("lockstep.pictures.run_pictures", "scipy.signal", "lockstep.report.page", "lockstep.cli.command"),
        *("torch.export._trace", "torch.export.pt2_archive._package", "sqlalchemy.dialects.sqlite"),
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
    _StandBy()
    # Hydra looks for plugins in all folders named hydra_plugins: not in tests/hydra_plugins.
    sys.path[:] = [str(folder), *(path for path in sys.path if Path(path) != TESTS)]
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


def open_text(descriptor):
    file = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(file), line_buffering=descriptor == 2)


class _StandBy:
    """A process, forked before a command begins, that becomes its first fork server: as subprocess.Popen has it,
    but for the imports. What of its environment counts only as a process starts (glibc's), it lacks.
    """

    def __init__(self):
        from lockstep.execution import pool

        self.returncode = None
        self._request, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._request.close()
            _become_server(theirs)
        theirs.close()
        pool.subprocess = SimpleNamespace(Popen=self._popen, DEVNULL=subprocess.DEVNULL)

    def _popen(self, command, *, stdin, pass_fds, env):
        from lockstep.execution import pool

        pool.subprocess = subprocess  # for a second one
        socket.send_fds(self._request, [pickle.dumps((command[3:], env))], pass_fds)
        self._request.close()
        return self

    def poll(self):
        if self.returncode is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.returncode = -signal.SIGKILL
        return self.returncode

    def wait(self):
        os.waitpid(self.pid, 0)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)


def _become_server(request):
    import torch
    from threadpoolctl import threadpool_limits

    from lockstep.execution import server

    message, descriptors, *_ = socket.recv_fds(request, 2**20, 1)
    if not message:  # the command has ended without one
        os._exit(0)
    (_, *words), environment = pickle.loads(message)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    threadpool_limits(1)
    Path("/proc/self/comm").write_text("fork server")
    sys.argv = [server.__file__, str(*descriptors), *words]
    runpy.run_path(server.__file__, run_name="__main__")
