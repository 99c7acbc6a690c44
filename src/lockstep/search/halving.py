"""The pruners that decide at rungs which trials are promoted."""

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from lockstep.search.rules import Rules

PROMOTED = "promoted_at"
"""The user attribute of a study's trial for the rung from which it was last promoted."""


class Halving(BasePruner):
    """Asynchronous successive halving (Li et al., 2020: Massively Parallel Hyperparameter Tuning).

    Let n be 1/reduction_factor of all trials that have reached a rung, rounded down, but at least finalists,
    so that as many train to their end. A trial is promoted if it is among the best n and fewer than n were
    promoted before it. Judge trials that reach a rung together after all of them have reported, best first.
    (Optuna's own SuccessiveHalvingPruner counts a trial at a rung only once it was judged, so the order of
    judging would decide.)
    """

    def __init__(self, reduction_factor: int, finalists: int = 1) -> None:
        self._reduction_factor, self._finalists = reduction_factor, finalists

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tell whether to prune the trial at the rung of its last report."""
        rung = trial.last_step
        if rung is None:
            return False
        sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
        been_there = [
            other for other in study.get_trials(deepcopy=False) if rung in other.intermediate_values
        ]
        n_may = max(self._finalists, len(been_there) // self._reduction_factor)
        n_have = sum(other.user_attrs.get(PROMOTED, 0) >= rung for other in been_there)
        n_better = sum(
            sign * other.intermediate_values[rung] < sign * trial.intermediate_values[rung]
            for other in been_there
        )
        return n_have >= n_may or n_better >= n_may


def pruner(rules: Rules) -> BasePruner:
    """Return the pruner that judges trials at rungs."""
    search, rungs = rules.settings, rules.rungs
    if not rungs.steps:
        return NopPruner()
    if search.pruner == "halving":
        return Halving(search.reduction_factor, search.finalists)
    if search.pruner == "hyperband":
        return HyperbandPruner(rungs.steps[0], rules.epochs * rungs.unit, search.reduction_factor)
    return MedianPruner(n_warmup_steps=rungs.steps[0] - 1)
