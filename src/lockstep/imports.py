"""Loading large libraries."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """What is imported meanwhile stays unseen by the garbage collector, now and later.

    It takes a third of the time in which torch, MLflow and the rest load, and a second when Python exits,
    to find nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
