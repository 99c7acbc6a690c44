"""mypy finds nothing. A test, so that it runs beside the others: it is a minute of one core."""

import subprocess
import sys

from helpers.clone import REPOSITORY


def test_types_are_right():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
