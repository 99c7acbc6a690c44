"""How a run of a command ended."""

from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.config.schema import RunConfig
from lockstep.results.history import Status


class RunFailed(Exception):
    """A run of the command ended FAILED; the message says which and why."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: as in MLflow.
        overrides: that asked for it.
        metrics: its last and best figures, by name, as the store has them.
        reason: why it did not finish.
        stored: whether an earlier command trained it.
        pruned_at: the epochs after which a search gave it up, or None.
    """

    config: RunConfig
    name: str
    overrides: tuple[str, ...]
    status: Status
    metrics: Mapping[str, float]
    reason: str = ""
    stored: bool = False
    pruned_at: int | None = None

    @property
    def objective(self) -> float | None:
        """The last accuracy on the validation set, or on the test set where there is none; None of a run that
        did not come to its end."""
        accuracy = self.metrics.get("val/accuracy", self.metrics.get("test/accuracy"))
        return accuracy if self.status == "FINISHED" and self.pruned_at is None else None

    def result(self) -> float | None:
        """The objective, as a Hydra job returns it.

        Raises:
            RunFailed: if the run did not finish.
        """
        if self.status != "FINISHED":
            raise RunFailed(f"{self.name}: {self.reason}")
        return self.objective
