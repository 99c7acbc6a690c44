import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


class Clone:
    """A working copy of its own: run.py as a real process, with its own outputs."""

    def __init__(self, root):
        self.root = root
        shutil.copy(REPOSITORY / "run.py", root)
        for folder in ("conf", "src"):
            (root / folder).symlink_to(REPOSITORY / folder)

    @property
    def store(self):
        return f"sqlite:///{self.root}/outputs/mlflow.db"

    def start(self, *arguments, **options):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        return subprocess.Popen(
            [sys.executable, str(self.root / "run.py"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            **options,
        )

    def run(self, *arguments, **options):
        """Exit code, standard output, standard error."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)
