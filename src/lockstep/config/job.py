"""A run that was asked for."""

from dataclasses import dataclass

from lockstep.config.schema import RunConfig


@dataclass(frozen=True)
class Job:
    """A run to be trained and the overrides that asked for it."""

    config: RunConfig
    overrides: tuple[str, ...]
