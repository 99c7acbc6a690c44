"""A run that was asked for."""

from dataclasses import dataclass

from lockstep.config.schema import RunConfig


@dataclass(frozen=True)
class RunRequest:
    """A run's config and the overrides that asked for it."""

    config: RunConfig
    overrides: tuple[str, ...]
