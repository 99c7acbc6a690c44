"""A worker beside those that train, for what needs torch and is not training: checks, pictures, models.

So the command's own process loads no torch. A process that has not started workers (`pool.start`) does it
itself.
"""

import logging
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

from lockstep.execution import library_warnings, pool
from lockstep.execution.pool import Worker, WorkerDied
from lockstep.execution.task import reason_of

T = TypeVar("T")

log = logging.getLogger("lockstep")

_is_awaited = False  # whether the worker carries out a call, and what is done meanwhile asks for another


def begin(function: Callable[..., object], *arguments: object) -> None:
    """Start a call that prepares later ones, and whose result, or failure, is of no interest; nothing where
    `call` would not use the worker."""
    if pool.is_started() and not _is_awaited:
        _worker().submit(_outcome, function, arguments)


def call(function: Callable[..., T], *arguments: Any, meanwhile: Callable[[], object] = lambda: None) -> T:
    """Call a function in the worker, after what it is doing; here unless workers are started.

    A worker that was killed costs nothing: the function is called once more, in another one.

    Args:
        meanwhile: called here while the worker carries out the call. What it calls in turn is carried out by
            a worker that trains.

    Raises:
        WorkerDied: if that one ends, too, before it returns. Otherwise what the functions raise.
    """
    global _is_awaited
    if not pool.is_started():
        meanwhile()
        return function(*arguments)
    worker, was_awaited = _submitted(function, arguments), _is_awaited
    _is_awaited = True
    try:
        meanwhile()
    finally:
        _is_awaited = was_awaited
    try:
        returned, error, warnings = worker.result()
    except WorkerDied:
        try:
            returned, error, warnings = _submitted(function, arguments).result()
        except WorkerDied:
            raise WorkerDied("its worker process died, as it does when memory runs out") from None
    for warning in warnings:
        log.warning("%s", warning)
    if error is not None:
        raise error
    result: T = returned
    return result


def _submitted(function: Callable[..., object], arguments: tuple[Any, ...]) -> Worker:
    if _is_awaited:
        return pool.submit(_outcome, function, arguments)
    worker = _worker()
    worker.submit(_outcome, function, arguments)
    return worker


def _worker() -> Worker:
    """Return the worker, once it has ended what it is doing."""
    worker = pool.worker(is_aside=True)
    if worker.is_busy:
        try:
            worker.result()
        except WorkerDied:
            return pool.worker(is_aside=True)
    return worker


def _outcome(
    function: Callable[..., object], arguments: tuple[Any, ...]
) -> tuple[object, Exception | None, list[str]]:
    """Call a function in the worker; return its result or its error, and what libraries warned of."""
    try:
        return function(*arguments), None, library_warnings.taken()
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(reason_of(error))
        return None, error, library_warnings.taken()
