"""A working copy of its own: run.py as real processes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from helpers import forked

REPOSITORY = Path(__file__).resolve().parents[2]


class Clone:
    """A working copy of its own: run.py as a real process, with its own outputs."""

    def __init__(self, root, store=None):
        self.root = root
        if store is not None:
            (root / "outputs").mkdir()
            shutil.copy(store, root / "outputs" / "mlflow.db")
        self.processes = []
        shutil.copy(REPOSITORY / "run.py", root)
        for folder in ("conf", "src"):
            (root / folder).symlink_to(REPOSITORY / folder)

    @property
    def store(self):
        return f"sqlite:///{self.root}/outputs/mlflow.db"

    def start(self, *arguments, extra=()):
        """A command in a process that is forked, not started; `extra` is added to its environment."""
        words = [str(self.root / "run.py"), *arguments]
        self.processes.append(forked.Started(words, self.root, _environment(extra)))
        return self.processes[-1]

    def start_anew(self, *arguments, extra=(), flags=(), **options):
        """As `start`, in a Python that starts with it: for tests of how commands start and end."""
        process = subprocess.Popen(
            [sys.executable, *flags, str(self.root / "run.py"), *arguments],
            text=True,
            env=_environment(extra),
            # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        self.processes.append(process)
        return process

    def run(self, *arguments, **options):
        """Exit code, standard output, standard error."""
        process = self.start_anew(*arguments, **options)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def run_watched(self, *arguments, **options):
        """As `run`; the libraries that the command's own process has imported, instead of standard error."""
        code, out, err = self.run(*arguments, flags=("-X", "importtime"), **options)
        assert all(line.startswith("import time:") for line in err.splitlines()), err[-2000:]
        return code, out, set(re.findall(r"\| +(\w+)[.\w]*$", err, re.M))

    def quick(self, *arguments, extra=(), timeout=240):
        """As `run`, in a process that is forked."""
        return self._forked(str(self.root / "run.py"), *arguments, extra=extra, timeout=timeout)

    def verb(self, *arguments, extra=()):
        """`python -m lockstep`, in the clone, likewise."""
        return self._forked("-m", "lockstep", *arguments, extra=extra)

    def _forked(self, *words, extra=(), timeout=240):
        done = forked.run(words, self.root, _environment(extra), timeout)
        return done.returncode, done.stdout, done.stderr


def _environment(extra):
    own = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return own | {"MLFLOW_PORT": "5000"} | dict(extra)  # whatever else is served on this machine
