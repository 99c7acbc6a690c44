"""What was asked for: a run, and the command that asked."""

from dataclasses import dataclass

from lockstep.config.schema import RunConfig


@dataclass(frozen=True)
class RunRequest:
    """A run's config and the overrides that asked for it.

    Attributes:
        differing: those that change a default, of a command's only run.
    """

    config: RunConfig
    overrides: tuple[str, ...]
    differing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Typed:
    """A command, quoted for a shell, or a call of the Python API.

    Attributes:
        whole: as it was typed.
        alone: what stands before the overrides of one of its runs, to train it alone; empty of a call.
    """

    whole: str
    alone: str
