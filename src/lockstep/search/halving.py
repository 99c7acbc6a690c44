"""Rungs: the epochs after which a search decides which trials go on (successive halving and its kin)."""

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from lockstep.config.search_config import SearchConfig


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


PROMOTED = "promoted_at"
"""The user attribute of a trial in the study that names the rung from which it was last promoted."""


class Halving(BasePruner):
    """Asynchronous successive halving (Li et al., 2020: Massively Parallel Hyperparameter Tuning).

    Of all trials that have been at a rung, a reduction_factor-th may go on, one at least: a trial does that
    is among so many best, while no more have gone on. Those that come there together are to be judged after
    all of them have reported, best first. (Optuna's own SuccessiveHalvingPruner counts a trial as having been
    at a rung only once it was judged, so that the luck of their order would decide.)
    """

    def __init__(self, reduction_factor: int) -> None:
        self._reduction_factor = reduction_factor

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial, at the rung of its last report, is to be given up."""
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
    """What judges trials at rungs; `epochs` are those of a trial that is not given up."""
    if search.pruner == "halving":
        return Halving(search.reduction_factor)
    if search.pruner == "hyperband":
        return HyperbandPruner(search.min_epochs, epochs, search.reduction_factor)
    if search.pruner == "median":
        return MedianPruner(n_warmup_steps=search.min_epochs - 1)
    return NopPruner()
