"""How long a store that does not answer is waited for."""

import functools
import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from lockstep.tracking.errors import is_outage, message_of

log = logging.getLogger("lockstep")

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""How long a store that doesn't answer is waited for once all is trained."""

RETRY_SECONDS = 2.0
"""The time between two attempts."""


def patient(step: Callable[P, T]) -> Callable[P, T]:
    """Return a step that is taken again while the store is away, for PATIENCE_SECONDS.

    Args:
        step: may be repeated.
    """

    @functools.wraps(step)
    def taken(*args: P.args, **kwargs: P.kwargs) -> T:
        until, is_said = time.monotonic() + PATIENCE_SECONDS, False
        while True:
            try:
                return step(*args, **kwargs)
            except Exception as error:
                if not is_outage(error) or time.monotonic() >= until:
                    raise
                if not is_said:
                    log.warning("the store does not answer, waiting for it: %s", message_of(error))
                is_said = True
            time.sleep(RETRY_SECONDS)

    return taken
