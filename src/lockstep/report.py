"""What is printed of runs: the table of those that have ended, best first, and the plan of a dry run."""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from lockstep.config import RunConfig
from lockstep.plan import Plan
from lockstep.train import Status


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


COLUMNS = {
    "val accuracy": ("val/accuracy", ".4f"),
    "test accuracy": ("test/accuracy", ".4f"),
    "best": ("test/accuracy_best", ".4f"),
    "test loss": ("test/loss", ".4f"),
    "training": ("time/train_seconds", ".1f"),
}


def leaderboard(outcomes: Sequence[Outcome], rows: Sequence[Repeats] | None = None) -> Table:
    """Failures first, then runs best first; of those that differ in their seed alone, mean ± std.

    Args:
        rows: the latter, as `ranked` puts them by default.
    """
    rows = ranked(outcomes) if rows is None else rows
    failed = [Repeats((outcome,)) for outcome in outcomes if outcome.status != "FINISHED"]
    repeated = any(len(row.outcomes) > 1 for row in rows)
    with_val = any("val/accuracy" in outcome.metrics for outcome in outcomes)
    columns = {
        heading: column
        for heading, column in COLUMNS.items()
        # The best epoch's test accuracy is no measure where there is a validation set to choose by.
        if heading != ("best" if with_val or repeated else "val accuracy")
        if with_val or heading != "val accuracy"
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold", min_width=20)
    for heading in ["n", *columns] if repeated else columns:
        table.add_column(heading, justify="right")
    table.add_column("status")
    for row in (*failed, *rows):
        cells = [_cell(row, *column) for column in columns.values()]
        stored = all(outcome.stored for outcome in row.outcomes)
        cells[-1] = "stored" if stored else f"{cells[-1]} s"
        first = row.outcomes[0]
        status = first.status + (f": {first.reason}" if first.reason else "")
        table.add_row(row.name, *([str(len(row.outcomes))] if repeated else []), *cells, status)
    return table


def _cell(row: Repeats, metric: str, form: str) -> str:
    mean, std = row.mean(metric), row.std(metric)
    if mean is None:
        return ""
    return f"{mean:{form}}" if std is None or metric.startswith("time/") else f"{mean:{form}} ± {std:{form}}"


def plan_table(planned: Plan, names: Sequence[str], flops: float) -> Table:
    """What a dry run shows: each array's runs, the time they take and the bytes of their state.

    Args:
        flops: FLOP/s of a large GEMM on one thread of this machine.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("array")
    table.add_column("runs", overflow="fold")
    for heading in ("training", "memory"):
        table.add_column(heading, justify="right")
    for index, array in enumerate(planned.arrays, start=1):
        runs = "\n".join(names[k] for k in array.jobs)
        table.add_row(str(index), runs, f"{array.cost / flops:.1f} s", f"{array.bytes / 2**20:.1f} MiB")
    return table


def plan_summary(planned: Plan, flops: float) -> str:
    """The plan's whole in a sentence; `flops` as for `plan_table`."""
    n_runs = sum(len(array.jobs) for array in planned.arrays)
    numbers = ((n_runs, "run"), (len(planned.arrays), "array"), (planned.n_workers, "worker"))
    runs, arrays, workers = (f"{n:,} {what}{'s' * (n != 1)}" for n, what in numbers)
    return (
        f"{runs} in {arrays} on {workers}: about {planned.cost / flops:.0f} s of training, and"
        f" {planned.bytes / 2**20:.1f} MiB at once for weights, gradients and optimizers, beside the data."
    )
