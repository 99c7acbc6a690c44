"""What is said about errors that end a command, and the exit code that they give it.

Heavy imports wait until an error may be a store's: `--help`, too, answers errors.
"""

import shutil
import sys
import tempfile
import traceback

from hydra.errors import HydraException

from lockstep.config import composer
from lockstep.config.errors import Refused, without_password

OK, FAILED, REFUSED = 0, 1, 2


def report(error: Exception) -> int | None:
    """Print a message about an error that ended a command while its runs trained, or before.

    Returns:
        The command's exit code; None for an error that nobody foresaw, about which nothing is printed.
    """
    from lockstep.execution.cluster import ClusterLost
    from lockstep.execution.task import NO_ROOM
    from lockstep.recovery.run_folder import is_of_folders, unfinished
    from lockstep.results.run_result import RunFailed
    from lockstep.sweep.session import NotUploaded
    from lockstep.tracking import errors

    code = FAILED
    if isinstance(error, (RunFailed, NotUploaded)):
        message = without_password(str(error))
    elif isinstance(error, OSError) and error.errno in NO_ROOM:
        message = f"{error}: make room ({_room()}), then give the same command again; it resumes from here"
    elif isinstance(error, ClusterLost):
        message = str(error)
    elif (is_stores := errors.is_stores(error)) or is_of_folders(error):
        what = "the store can't be used: " if is_stores else ""
        again = f"Give the same command again: it resumes from what {unfinished()} has"
        message = f"{what}{errors.message_of(error)}\n{again}"
    elif _is_hydras(error):
        message, code = message_of(error), REFUSED
    else:
        return None
    print(message, file=sys.stderr)
    return code


def message_of(error: Exception) -> str:
    """Return what to print about an error of Hydra's, or about a command that was refused."""
    prefix = "" if isinstance(error, HydraException | Refused) else "Hydra: "
    return without_password(prefix + composer.message_of(error))


def _room() -> str:
    """Return how much is free where a command writes: the error of a full disk may name no file."""
    from lockstep.recovery.run_folder import unfinished

    there = next(path for path in unfinished().parents if path.exists())
    places = dict.fromkeys([str(there), tempfile.gettempdir()])
    return ", ".join(f"{place} has {shutil.disk_usage(place).free / 2**20:,.0f} MiB free" for place in places)


def _is_hydras(error: Exception) -> bool:
    """Tell whether Hydra raised an error before it came to a run: it has a setting that it can't use."""
    if isinstance(error, Refused):
        return False
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return "hydra.main" in frames and not any(
        name.startswith("lockstep.") for name in frames[frames.index("hydra.main") :]
    )
