"""Python's garbage collector, paused where it would find nothing to free."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Hide objects made in the block from the collector, now and later: imports, the configs of a sweep.

    The collector would take a third of the time that torch, MLflow and other imports load, and a second when
    Python exits, to find nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
