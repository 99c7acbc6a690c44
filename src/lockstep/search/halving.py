"""Rungs: the epochs after which a search promotes or prunes trials, and the pruners that decide."""

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from lockstep.config.search_config import SearchConfig


def rungs(search: SearchConfig, epochs: int) -> list[int]:
    """Return the epochs after which trials of `epochs` epochs pause to be judged.

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


PROMOTED = "promoted_at"
"""The user attribute of a study's trial for the rung from which it was last promoted."""


class Halving(BasePruner):
    """Asynchronous successive halving (Li et al., 2020: Massively Parallel Hyperparameter Tuning).

    Let n be 1/reduction_factor of all trials that have reached a rung, rounded down, but at least 1. A trial
    is promoted if it is among the best n and fewer than n were promoted before it. Judge trials that reach a
    rung together after all of them have reported, best first. (Optuna's own SuccessiveHalvingPruner counts a
    trial at a rung only once it was judged, so the order of judging would decide.)
    """

    def __init__(self, reduction_factor: int) -> None:
        self._reduction_factor = reduction_factor

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether to prune the trial at the rung of its last report."""
        rung = trial.last_step
        if rung is None:
            return False
        sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
        been_there = [
            other for other in study.get_trials(deepcopy=False) if rung in other.intermediate_values
        ]
        n_may = max(1, len(been_there) // self._reduction_factor)
        n_have = sum(other.user_attrs.get(PROMOTED, 0) >= rung for other in been_there)
        n_better = sum(
            sign * other.intermediate_values[rung] < sign * trial.intermediate_values[rung]
            for other in been_there
        )
        return n_have >= n_may or n_better >= n_may


def pruner(search: SearchConfig, epochs: int) -> BasePruner:
    """Return the pruner that judges trials at rungs; `epochs` are the epochs of a trial that isn't pruned."""
    if search.pruner == "halving":
        return Halving(search.reduction_factor)
    if search.pruner == "hyperband":
        return HyperbandPruner(search.min_epochs, epochs, search.reduction_factor)
    if search.pruner == "median":
        return MedianPruner(n_warmup_steps=search.min_epochs - 1)
    return NopPruner()
