"""The worker processes, which joblib starts and keeps. Light: torch is loaded in the workers only."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

from lockstep.execution.collector import uncollected

WATCH_SECONDS = 0.2
"""How often a worker looks whether the process that started it is still there."""


@contextmanager
def workers(n: int, threads: int) -> Iterator[Parallel]:
    """What calls functions in n processes; those started are there for the next to ask for the same.

    Args:
        threads: intra-op threads of each.
    """
    global _used
    if threading.current_thread() is not _starting:
        wait()
    _used = True
    serving = {"initializer": _serve, "initargs": (os.getpid(),)}
    with _huge_pages(), parallel_config("loky", n_jobs=n, inner_max_num_threads=threads, **serving):
        # mmap_mode: copied on writing, so that torch is content; nobody writes.
        yield Parallel(pre_dispatch="all", batch_size=1, max_nbytes=2**16, mmap_mode="c")


_starting: threading.Thread | None = None
_used = False


def start(n: int, draw: bool) -> None:
    """Start n workers while this process goes on: each takes seconds to load what it needs.

    Args:
        draw: whether they are to draw pictures.
    """
    global _starting

    def load() -> None:
        with workers(n, threads=1) as call:
            call(delayed(_load)(draw) for _ in range(n))

    _starting = threading.Thread(target=load, daemon=True)
    _starting.start()


def wait() -> None:
    """Wait until workers that were started are there."""
    if _starting is not None:
        _starting.join()


def kill() -> None:
    """End the workers, whatever they are doing, if there are any."""
    global _used
    if _used:  # or joblib would make an executor just to end it
        get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)
    _used = False


def _serve(parent: int) -> None:
    """Let this process, a worker, end soon after the one that started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _load(draw: bool) -> None:
    # scikit-learn measures runs that end; it takes a second to load, and a worker has nothing to do yet.
    names = ["lockstep.execution.workers", "sklearn.decomposition", "sklearn.metrics", "sklearn.neighbors"]
    with uncollected():
        for name in [*names, "lockstep.pictures.run_pictures"] if draw else names:
            import_module(name)


@contextmanager
def _huge_pages() -> Iterator[None]:
    """Let glibc ask for huge pages in processes started meanwhile: a step is 5 % quicker with them."""
    before = os.environ.get("GLIBC_TUNABLES")
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    try:
        yield
    finally:
        if before is None:
            del os.environ["GLIBC_TUNABLES"]
