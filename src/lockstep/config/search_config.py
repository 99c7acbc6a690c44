"""The settings of a search (`hydra/sweeper=search`), validated."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from omegaconf import DictConfig
from pydantic import Field, ValidationError

from lockstep.config.errors import Refused, problem
from lockstep.config.frozen import MOST, Count, Frozen


class SearchConfig(Frozen):
    """The settings of `hydra/sweeper=search`.

    Attributes:
        n_trials: trials in all, including the ones of earlier commands with the same search; trials with the
            same config count once.
        timeout: seconds after which no new trial starts.
        metric, direction: how trials are ranked.
        array_size: trials that are proposed, and start, together.
        pruner, min_epochs, reduction_factor, finalists: see lockstep.search.halving and its rungs.
        extrapolate: see lockstep.search.scores; None compares trials by the metric at a rung.
        confirm_best, confirm_seeds: the number of best trials that are trained again before the winner is
            decided, and the number of seeds for each; 0 seeds confirm none.
    """

    n_trials: Count
    timeout: float | None = Field(gt=0)
    sampler: Literal["tpe", "gp", "cmaes", "random"]
    metric: Literal["val/accuracy", "val/loss", "val/balanced_accuracy", "val/f1_macro"]
    direction: Literal["maximize", "minimize"] | None
    seed: int = Field(ge=0, lt=2**32)
    array_size: int = Field(ge=1, le=10_000)
    pruner: Literal["halving", "hyperband", "median", "none"]
    min_epochs: float | None = Field(ge=0.001, le=MOST)
    reduction_factor: int = Field(ge=2, le=MOST)
    finalists: Count
    extrapolate: float | None = Field(ge=0, le=1)
    confirm_seeds: int = Field(ge=0, le=MOST)
    confirm_best: Count

    @classmethod
    def of(cls, node: DictConfig) -> Self:
        """Validate the sweeper's node of Hydra's config.

        Raises:
            Refused: with a message for each setting that is mistyped or out of range.
        """
        tree = {key: node[key] for key in cls.model_fields}
        try:
            config = cls.model_validate(tree)
        except ValidationError as error:
            raise Refused(
                [
                    problem({**details, "loc": ("hydra.sweeper", *details["loc"])}, {"hydra.sweeper": tree})
                    + ("; test figures decide nothing in a search" if _asks_for_test(details) else "")
                    for details in error.errors()
                ]
            ) from error
        return config

    @property
    def maximizes(self) -> bool:
        """Whether more is better; by default true for all but the loss."""
        direction = self.direction or ("minimize" if self.metric == "val/loss" else "maximize")
        return direction == "maximize"


def _asks_for_test(details: Mapping[str, Any]) -> bool:
    return details["loc"] == ("metric",) and str(details["input"]).startswith("test")
