import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


class Clone:
    """A working copy of its own: run.py as a real process, with its own outputs."""

    def __init__(self, root):
        self.root = root
        self.processes = []
        shutil.copy(REPOSITORY / "run.py", root)
        for folder in ("conf", "src"):
            (root / folder).symlink_to(REPOSITORY / folder)

    @property
    def store(self):
        return f"sqlite:///{self.root}/outputs/mlflow.db"

    def start(self, *arguments, **options):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        process = subprocess.Popen(
            [sys.executable, str(self.root / "run.py"), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **{"stdout": subprocess.PIPE, **options},
        )
        self.processes.append(process)
        return process

    def run(self, *arguments, **options):
        """Exit code, standard output, standard error."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err


@pytest.fixture
def clone(tmp_path):
    made = Clone(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
