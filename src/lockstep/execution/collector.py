"""Python's garbage collector, where all that it could do is look."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """What is made meanwhile stays unseen by the collector, now and later: imports, the configs of a sweep.

    It takes a third of the time in which torch, MLflow and the rest load, and a second when Python exits,
    to find nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
