"""Rungs: the epochs after which a search decides which trials go on (successive halving and its kin)."""

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from lockstep.config import SearchConfig


def rungs(search: SearchConfig, epochs: int) -> list[int]:
    """The epochs after which trials of so many epochs in all pause to be judged.

    Successive halving and Hyperband judge after min_epochs times each power of the reduction factor (Li et
    al., 2018: Hyperband, section 3), the median rule after each epoch from min_epochs on.
    """
    if search.pruner == "none":
        return []
    if search.pruner == "median":
        return list(range(search.min_epochs, epochs))
    powers, rung = [], search.min_epochs
    while rung < epochs:
        powers.append(rung)
        rung *= search.reduction_factor
    return powers


class Halving(BasePruner):
    """Asynchronous successive halving (Li et al., 2020: Massively Parallel Hyperparameter Tuning).

    A trial goes on from a rung if it is among the best 1 / reduction_factor of all that have been there, or
    the best. Optuna's own SuccessiveHalvingPruner counts a trial as having been at a rung only once it was
    judged, so it judges the trials of an array, which come there together, by the luck of their order.
    """

    def __init__(self, reduction_factor: int) -> None:
        self._reduction_factor = reduction_factor

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial, at the rung of its last report, is to be given up."""
        rung = trial.last_step
        if rung is None:
            return False
        sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
        values = sorted(
            sign * other.intermediate_values[rung]
            for other in study.get_trials(deepcopy=False)
            if rung in other.intermediate_values
        )
        n_promoted = max(1, len(values) // self._reduction_factor)
        return sign * trial.intermediate_values[rung] > values[n_promoted - 1]


def pruner(search: SearchConfig, epochs: int) -> BasePruner:
    """What judges trials at rungs; `epochs` are those of a trial that is not given up."""
    if search.pruner == "halving":
        return Halving(search.reduction_factor)
    if search.pruner == "hyperband":
        return HyperbandPruner(search.min_epochs, epochs, search.reduction_factor)
    if search.pruner == "median":
        return MedianPruner(n_warmup_steps=search.min_epochs - 1)
    return NopPruner()
