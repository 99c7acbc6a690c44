"""Metrics of this machine (CPU, memory, disk, network, GPU), recorded with a run by MLflow's own monitor."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from lockstep.tracking.store import Store

FIRST_SECONDS = 0.2
"""The interval at which is looked whether the run has been started in the store."""

CLOSING_SECONDS = 2.0
"""The longest wait for the last values to be recorded: a store may not answer."""


@contextmanager
def recorded(store: Store, run_id: Callable[[], str | None]) -> Iterator[None]:
    """Record them while the block runs, in threads of their own; nothing waits for the store.

    Args:
        run_id: returns the MLflow run that gets them, None as long as the store does not have it.
    """
    ended = threading.Event()

    def work() -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        while (found := run_id()) is None:
            if ended.wait(FIRST_SECONDS):
                return
        monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
            found, resume_logging=True, tracking_uri=store.uri
        )
        monitor.start()  # type: ignore[no-untyped-call]
        ended.wait()
        monitor.finish()  # type: ignore[no-untyped-call]

    def quietly() -> None:
        with suppress(Exception):  # the store is away, or was closed: what it lacks is no result
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        raise
    ended.set()
    thread.join(CLOSING_SECONDS)
