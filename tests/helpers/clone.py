"""A working copy of its own: run.py as real processes."""

import os
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

    def start(self, *arguments, extra=(), **options):
        """A command; `extra` is added to its environment."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= dict(extra)
        process = subprocess.Popen(
            [sys.executable, str(self.root / "run.py"), *arguments],
            text=True,
            env=environment,
            # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        self.processes.append(process)
        return process

    def run(self, *arguments, **options):
        """Exit code, standard output, standard error."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def quick(self, *arguments, extra=()):
        """As `run`, in a process that is forked, not started."""
        return self._forked(str(self.root / "run.py"), *arguments, extra=extra)

    def verb(self, *arguments):
        """`python -m lockstep`, in the clone, likewise."""
        return self._forked("-m", "lockstep", *arguments)

    def _forked(self, *words, extra=()):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        done = forked.run(words, self.root, environment | dict(extra))
        return done.returncode, done.stdout, done.stderr
