"""Which run is the best: runs that differ in their seed alone together, best first."""

import json
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lockstep.config.schema import RunConfig
from lockstep.results.run_result import Outcome


@dataclass(frozen=True)
class Repeats:
    """Runs that came to their end and differ in nothing but their seed; often one."""

    outcomes: tuple[Outcome, ...]

    @property
    def name(self) -> str:
        """What tells them from others, without the seed where there are several."""
        first = self.outcomes[0]
        if len(self.outcomes) == 1:
            return first.name
        return re.sub(r"(^| )seed=\d+", "", first.name).strip() or first.config.model.name

    def mean(self, metric: str) -> float | None:
        """The mean of their last values, of those that have one."""
        values = self._values(metric)
        return statistics.fmean(values) if values else None

    def std(self, metric: str) -> float | None:
        """The sample standard deviation, where there are two or more."""
        values = self._values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def _values(self, metric: str) -> list[float]:
        return [outcome.metrics[metric] for outcome in self.outcomes if metric in outcome.metrics]


def ranked(outcomes: Sequence[Outcome], metric: str | None = None, maximizes: bool = True) -> list[Repeats]:
    """Runs that came to their end, those that differ in their seed alone together, best first.

    Args:
        metric: what they are ranked by, by the mean; the objective, if None.
        maximizes: whether more of it is better.
    """
    groups = [
        group
        for alike in _grouped([o for o in outcomes if o.objective is not None], _but_for_seeds).values()
        # The order of the minibatches is one more difference, unless data.shuffle_seed=${seed} makes it one.
        for group in (
            [alike]
            if all(o.config.data.shuffle_seed == o.config.seed for o in alike)
            else _grouped(alike, lambda config: str(config.data.shuffle_seed)).values()
        )
    ]

    def rank(repeats: Repeats) -> float:
        values = [o.objective if metric is None else o.metrics.get(metric) for o in repeats.outcomes]
        mean = statistics.fmean(value for value in values if value is not None)
        return -mean if maximizes else mean

    return sorted((Repeats(tuple(group)) for group in groups), key=rank)


def _grouped(outcomes: Sequence[Outcome], key: Callable[[RunConfig], str]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome.config), []).append(outcome)
    return groups


def _but_for_seeds(config: RunConfig) -> str:
    kept = config.model_dump(mode="json", exclude={"seed": True, "tracking": True})
    del kept["data"]["shuffle_seed"]
    return json.dumps(kept, sort_keys=True)
