"""Where Lockstep's files are: the root, which has `outputs/`, and settings, conf/. How a user starts it.

In a checkout (run.py, or an editable install) both are the repository's. Elsewhere, settings are those of the
installed package, and `outputs/` is made in the current folder.
"""

import os
import shlex
import sys
from pathlib import Path

ROOT = "LOCKSTEP_ROOT"
"""The variable with the root; conf/ reads it."""

PROGRAM = "LOCKSTEP_PROGRAM"
"""The variable with what a user types to start the installed command; conf/ reads it."""

_PACKAGE = Path(__file__).absolute().parents[1]


def root() -> Path:
    """Return the absolute path of the folder that has `outputs/`."""
    if given := os.environ.get(ROOT):
        return Path(given).absolute()
    here = Path.cwd()
    return here if _is_checkout(here) else checkout() or here


def settle() -> None:
    """Set the root for conf/ and for all that this process does and starts, also after a change of folder."""
    os.environ[ROOT] = str(root())


def outputs() -> Path:
    """Return the folder of all outputs."""
    return root() / "outputs"


def conf() -> Path:
    """Return the folder of the primary config."""
    repository = checkout()
    return _PACKAGE / "conf" if repository is None else repository / "conf"


def checkout() -> Path | None:
    """Return the repository that this package is in, None if it is installed elsewhere."""
    repository = _PACKAGE.parents[1]
    return repository if _is_checkout(repository) else None


def program() -> str:
    """Return what a command that trains starts with, as the user types it."""
    return os.environ.get(PROGRAM) or ("lockstep" if checkout() is None else "python run.py")


def verbs() -> str:
    """Return what stands before a verb: in a checkout this Python, so that it can be pasted anywhere."""
    return f"{shlex.quote(sys.executable)} -m lockstep" if program() == "python run.py" else program()


def _is_checkout(folder: Path) -> bool:
    return (folder / "run.py").is_file() and (folder / "src" / "lockstep").is_dir()
