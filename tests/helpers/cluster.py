"""A Dask cluster of several "machines" on this one: processes with a home, a cache and a work folder each."""

import os
import subprocess
import sys
from pathlib import Path

from helpers import forked
from helpers.processes import until

SETTINGS = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_LOGGING__DISTRIBUTED": "error",  # nobody reads what they print
}


class Cluster:
    """A scheduler and its workers.

    Args:
        places: an address, and the words before a command that runs there, of `scheduler` and of each worker:
            see helpers.network. By default all are at 127.0.0.1, and forked.

    Attributes:
        address: of the scheduler, or what names it for `hydra.launcher.cluster`.
        workers: processes by the worker's name.
    """

    def __init__(self, root, places=None):
        self.root, self.workers, self._processes, self._places = Path(root), {}, [], places or {}
        self.file = self.root / "scheduler.json"
        self.root.mkdir(parents=True, exist_ok=True)
        self.start_scheduler()

    def start_scheduler(self):
        self.file.unlink(missing_ok=True)
        words = ("scheduler", "--port", "0", "--no-dashboard", "--no-show", "--dashboard-address", ":0")
        words += ("--scheduler-file", str(self.file))
        self.scheduler = self._start("scheduler", *words)
        until(self.file.exists, seconds=60)
        self.address = str(self.file)

    def add(self, name, n_threads=1, **environment):
        """Start a worker, on a machine of its own."""
        words = ("worker", "--scheduler-file", str(self.file), "--name", name)
        words += ("--nthreads", str(n_threads), "--no-nanny", "--no-dashboard", "--memory-limit", "0")
        words += ("--local-directory", str(self.home(name)), "--death-timeout", "30")
        self.workers[name] = self._start(name, *words, **environment)
        return self.workers[name]

    def home(self, name):
        """A machine's home."""
        return self.root / name

    def _start(self, name, *words, **environment):
        address, before = self._places.get(name, ("127.0.0.1", ()))
        words, home = ("-m", "dask", *words, "--host", address), self.home(name)
        home.mkdir(exist_ok=True)
        own = {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        environment = {**os.environ, **SETTINGS, **own, **environment}
        if before:
            process = subprocess.Popen([*before, sys.executable, *words], cwd=home, env=environment)
        else:
            process = forked.Started(words, home, environment)
        self._processes.append(process)
        return process

    def stop(self):
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
