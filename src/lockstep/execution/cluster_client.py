"""Dask's client, as a command uses it. Dask is loaded only where a cluster is named."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.config.errors import Refused

if TYPE_CHECKING:
    from distributed import Client

INSTALL = "needs Dask; install it with pip install 'lockstep[cluster]'"

DASKS_LOGS = ("distributed", "distributed.client")
"""Dask's loggers, which tell of a lost scheduler in tracebacks; `Cluster` says it in a line."""


def connected(address: str, seconds: float) -> "Client":
    """Return a client that is connected to a scheduler.

    Args:
        address: of the scheduler, or a scheduler file, which may be about to appear.
        seconds: how long it may take.

    Raises:
        Refused: if Dask is not installed, or the scheduler can't be reached.
    """
    key = f"hydra.launcher.cluster={address}"
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise Refused([f"{key}: {INSTALL}"]) from error

    class Connection(Client):
        """A client that is closed by `close` only: Dask's own waits for seconds if it never connected."""

        def __del__(self) -> None:
            pass

    for name in DASKS_LOGS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    given: dict[str, Any] = {"address": address}
    file = Path(address).expanduser()
    if "://" not in address and file.suffix == ".json":
        until = time.monotonic() + seconds
        while not file.exists():  # the scheduler may be starting
            if time.monotonic() > until:
                raise Refused([f"{key}: no such scheduler file"])
            time.sleep(0.1)
        given = {"scheduler_file": str(file)}
    connection: Any = Connection
    try:
        client: Client = connection(**given, timeout=seconds, set_as_default=False, name="lockstep")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused([f"{key}: {said}"]) from error
    return client
