"""MLflow's UI on this machine: `ui` serves it, and commands print the address at which it is served."""

import fcntl
import os
import socket
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NoReturn

from lockstep.config import places
from lockstep.config.errors import Refused

FIRST = 5000
"""MLflow's own port, and the first that is tried. On a Mac, another service has it."""

MOST = 65_535

QUIET, QUIET_VARIABLES = ("--uvicorn-opts", "--log-level warning"), {"MLFLOW_LOGGING_LEVEL": "WARNING"}
"""Have MLflow's server tell only what is wrong, not each request. (It still says that it is secured.)"""


def served() -> int | None:
    """Return the port at which `ui` serves the default store now, None if it does not."""
    with suppress(FileNotFoundError, ValueError), _file().open() as file:  # ValueError: not written yet
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # by the server
            return int(file.read())
    return None


@cache
def port() -> int:
    """Return the port at which the UI is served now, or would be: MLFLOW_PORT, else the first free one.

    It is found once per process: the links that a command prints are alike.
    """
    given = os.environ.get("MLFLOW_PORT", "")
    return int(given) if given.isdecimal() else served() or _free()


def serve(uri: str, asked: int | None, is_default: bool) -> NoReturn:
    """Become MLflow's UI, after its address is printed.

    Args:
        uri: an SQLite or database store.
        asked: the port, None for `port()`.
        is_default: whether it is the default store.

    Raises:
        Refused: if the port is taken, or the default store's UI is served already.
    """
    if is_default and (serving := served()) is not None:
        raise Refused([f"served already, at http://127.0.0.1:{serving}"])
    number = port() if asked is None else asked
    if not 0 < number <= MOST or _is_taken(number):
        raise Refused([f"port {number}: taken, or no port; by default a free one is chosen"])
    if is_default:
        _claim(number)
    print(f"MLflow's UI is served at http://127.0.0.1:{number} until Ctrl-C", flush=True)
    stores = ["--backend-store-uri", uri, "--registry-store-uri", uri]
    place = [*QUIET, "--host", "127.0.0.1", "--port", str(number)]
    words = [sys.executable, "-m", "mlflow", "ui", *stores, *place]
    os.execve(sys.executable, words, {**QUIET_VARIABLES, **os.environ})


def _file() -> Path:
    """Return the file with the port, which the server has locked as long as it lives."""
    return places.outputs() / "ui"


def _claim(number: int) -> None:
    """Write the port to the file, and lock it."""
    descriptor = os.open(_file(), os.O_RDWR | os.O_CREAT)
    os.set_inheritable(descriptor, True)  # the lock stays with this process, whatever program it becomes
    for _ in range(10):
        with suppress(BlockingIOError):  # `served`, of a command that looks at this moment
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(number).encode())


def _free() -> int:
    return next((number for number in range(FIRST, MOST) if not _is_taken(number)), FIRST)


def _is_taken(number: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", number), 0.5).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True
