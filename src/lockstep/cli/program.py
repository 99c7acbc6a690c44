"""The installed `lockstep` command: what run.py takes, and the verbs."""

import os
import shlex
import shutil
import sys

from lockstep.config import places
from lockstep.recovery import interrupts


def main() -> int:
    """Carry out the command in `sys.argv` and return the exit code."""
    interrupts.listen()  # before the imports that take a moment
    os.environ[places.PROGRAM] = "lockstep" if shutil.which("lockstep") else shlex.quote(sys.argv[0])
    places.settle()
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if "=" not in first and not first.startswith(("-", "+", "~")):  # nothing, a verb, or a misspelt one
        from lockstep.cli import verbs

        return verbs.main()
    from lockstep.cli import run

    return run.main(places.conf())
