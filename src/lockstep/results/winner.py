"""Which run of a sweep is best. Decided here only; everybody else reads the decision.

Runs that differ in seeds or folds only are repeats: they are ranked by their mean, so a lucky seed wins
nothing.
"""

import json
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lockstep.config.identity import SEEDS, is_identity
from lockstep.results.run_result import RunResult

SAME = " = "
"""Between the names of requests that meant the same run."""

SHORT_SEEDS = {"seed": "s", "shuffle_seed": "o", "fold": "f"}
"""How names shorten `seed=0`, `shuffle_seed=0` and `fold=0`: s0, o0 and f0."""

_SEED_IN_NAME = re.compile(r"(^| )(seed=|shuffle_seed=|fold=|[sof])\d+(?= |$)")


@dataclass(frozen=True)
class Ranking:
    """The rule that decides which run is best.

    Attributes:
        metric: its last value, the mean over repeats.
        maximize: whether higher is better.
        confirm_seeds: how many seeds a search trains its best runs with before it names a winner: where
            runs have so many repeats, no other run can win.
    """

    metric: str
    maximize: bool = True
    confirm_seeds: int = 0

    @classmethod
    def of(cls, runs: Iterable[RunResult]) -> "Ranking":
        """Return how a grid is ranked: by validation accuracy, or test accuracy where no run has that."""
        by_val = any("val/accuracy" in run.metrics for run in runs)
        return cls("val/accuracy" if by_val else "test/accuracy")

    @classmethod
    def from_json(cls, text: str) -> "Ranking":
        """Return the ranking in a text of `to_json`."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return it as text, for a tag of the sweep's parent run."""
        return json.dumps(self.__dict__)


@dataclass(frozen=True)
class Repeats:
    """Complete runs that differ in seeds or folds only, each once; often one."""

    runs: tuple[RunResult, ...]

    @property
    def name(self) -> str:
        """Their overrides that other runs don't have, without seeds if there are several runs."""
        if len(self.runs) == 1:
            return self.runs[0].name
        name = _SEED_IN_NAME.sub("", self.runs[0].name).strip()
        return name or self.runs[0].params.get("model", "")

    @property
    def representative(self) -> RunResult:
        """The run with the lowest seed and fold: it stands for all of them."""
        return min(self.runs, key=lambda run: [run.params.get(seed, "").zfill(20) for seed in SEEDS])

    @property
    def restored(self) -> str:
        """The epochs that its runs restored, such as `4 to 7`; empty without early stopping."""
        return _span([run.restored_epoch for run in self.runs if run.restored_epoch is not None])

    @property
    def stopping(self) -> str:
        """Which epochs its runs stopped after and restored, in words; empty without early stopping."""
        stopped = _span([run.stopped_at for run in self.runs if run.stopped_at is not None])
        words = {"stopped after epoch {}": stopped, "epoch {} restored": self.restored}
        return ", ".join(text.format(span) for text, span in words.items() if span)

    def mean(self, metric: str) -> float | None:
        """Return the mean of the metric's last values, None where no run has one."""
        values = self._values(metric)
        return statistics.fmean(values) if values else None

    def std(self, metric: str) -> float | None:
        """Return the sample standard deviation, None of fewer than two values."""
        values = self._values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def _values(self, metric: str) -> list[float]:
        return [run.metrics[metric] for run in self.runs if metric in run.metrics]


def _span(epochs: Sequence[int]) -> str:
    return " to ".join(map(str, sorted({min(epochs), max(epochs)}))) if epochs else ""


def ranked(runs: Sequence[RunResult], ranking: Ranking) -> list[Repeats]:
    """Return complete runs, repeats together, best first: the first wins.

    A run that was asked for several times counts once, and has the names of all its requests. Groups without
    the metric come last. Equal ones keep the order of their runs.
    """
    groups: dict[Any, dict[str, RunResult]] = {}
    for run in runs:
        if run.is_complete:
            group = groups.setdefault(_but_for_seeds(run), {})
            group[run.run_key] = _named_after(group.get(run.run_key, run), run)
    repeats = [Repeats(tuple(group.values())) for group in groups.values()]
    n_confirmed = min(ranking.confirm_seeds, max((len(group.runs) for group in repeats), default=0))

    def order(group: Repeats) -> tuple[bool, bool, float]:
        mean = _finite_mean(group, ranking)
        score = 0.0 if mean is None else -mean if ranking.maximize else mean
        return mean is None, len(group.runs) < n_confirmed, score

    return sorted(repeats, key=order)


@dataclass(frozen=True)
class Standings:
    """The runs of a sweep, in the order of the command, and their ranking.

    Attributes:
        run_id: the MLflow run of their parent, where there is one and it is known.
    """

    runs: tuple[RunResult, ...]
    ranking: Ranking
    run_id: str | None = None

    @cached_property
    def rows(self) -> list[Repeats]:
        """Complete runs, repeats together, best first, see `ranked`."""
        return ranked(self.runs, self.ranking)

    @property
    def winner(self) -> Repeats | None:
        """The best run with its repeats, None where no run has the metric."""
        return self.rows[0] if self.rows and _finite_mean(self.rows[0], self.ranking) is not None else None


def _named_after(run: RunResult, request: RunResult) -> RunResult:
    names = dict.fromkeys([*run.name.split(SAME), *request.name.split(SAME)])
    return replace(run, name=SAME.join(names))


def _finite_mean(group: Repeats, ranking: Ranking) -> float | None:
    mean = group.mean(ranking.metric)
    return mean if mean is not None and math.isfinite(mean) else None


def _but_for_seeds(run: RunResult) -> tuple[str, frozenset[tuple[str, str]]]:
    settings = ((key, value) for key, value in run.params.items() if is_identity(key) and key not in SEEDS)
    return run.instances_digest, frozenset(settings)
