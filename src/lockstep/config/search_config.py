"""A search's settings, validated: those of `hydra/sweeper=search`."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from omegaconf import DictConfig
from pydantic import Field, ValidationError

from lockstep.config.errors import Refused, problem
from lockstep.config.schema import Frozen


class SearchConfig(Frozen):
    """How a search goes about it: the settings of `hydra/sweeper=search`.

    Attributes:
        n_trials: in all, those of earlier commands that searched the same counted.
        timeout: seconds after which no trial is started any more.
        metric, direction: what trials are ranked by.
        array_size: trials that are asked for, and start, together.
        pruner, min_epochs, reduction_factor: see lockstep.search.halving.
        confirm_best, confirm_seeds: how many of the best are trained with how many seeds each, before the
            winner is named; 0 seeds for none.
    """

    n_trials: int = Field(ge=1)
    timeout: float | None = Field(gt=0)
    sampler: Literal["tpe", "gp", "cmaes", "random"]
    metric: Literal["val/accuracy", "val/loss"]
    direction: Literal["maximize", "minimize"] | None
    seed: int = Field(ge=0, lt=2**32)
    array_size: int = Field(ge=1)
    pruner: Literal["halving", "hyperband", "median", "none"]
    min_epochs: int = Field(ge=1)
    reduction_factor: int = Field(ge=2)
    confirm_seeds: int = Field(ge=0)
    confirm_best: int = Field(ge=1)

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
        """Whether more is better: unless it is said otherwise, of accuracy."""
        direction = self.direction or ("maximize" if self.metric == "val/accuracy" else "minimize")
        return direction == "maximize"


def _asks_for_test(details: Mapping[str, Any]) -> bool:
    return details["loc"] == ("metric",) and str(details["input"]).startswith("test")
