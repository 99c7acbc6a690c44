"""A sweep as the store has it: its parent run, and its runs with what was swept."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run

from lockstep.tracking.store import ENVIRONMENT, OVERRIDES, PRUNED_AT, REASON, Store

SEEDS = ("seed", "data.shuffle_seed")


@dataclass(frozen=True)
class SweptRun:
    """One run of a sweep.

    Attributes:
        params: all of its params, as the store has them: texts.
        metrics: the last value of each.
        pruned_at: the epochs after which a search gave it up, or None.
        reason: why it did not finish.
    """

    run_id: str
    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    pruned_at: int | None
    reason: str

    @property
    def has_ended(self) -> bool:
        """Whether it was trained to its end."""
        return self.status == "FINISHED" and self.pruned_at is None


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but their seed; often one."""

    runs: tuple[SweptRun, ...]

    def mean(self, metric: str) -> float | None:
        """Of those that have it."""
        values = self._values(metric)
        return statistics.fmean(values) if values else None

    def std(self, metric: str) -> float | None:
        """The sample standard deviation, where there are two or more."""
        values = self._values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def figure(self, metric: str) -> str:
        """The mean as a text, with ± std where there is one."""
        mean, std = self.mean(metric), self.std(metric)
        if mean is None:
            return ""
        if metric.startswith("time/"):
            return f"{mean:.1f}"
        return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f} (n = {len(self.runs)})"

    def _values(self, metric: str) -> list[float]:
        return [run.metrics[metric] for run in self.runs if metric in run.metrics]


@dataclass(frozen=True)
class Sweep:
    """A parent run and its runs.

    Attributes:
        runs: in the order in which they were started.
        swept: keys whose value is not the same in all runs, seeds left out.
        metric: what runs are ranked by: validation accuracy, or test accuracy where there is no such split.
        seconds: from its start to its end, or to now.
    """

    run_id: str
    name: str
    experiment: str
    experiment_id: str
    overrides: str
    seconds: float
    environment: Mapping[str, str]
    runs: tuple[SweptRun, ...]
    swept: tuple[str, ...]
    metric: str

    @property
    def rows(self) -> list[Row]:
        """Runs that were trained to their end, best first; those that differ in their seed alone together."""
        alike: dict[tuple[tuple[str, str], ...], list[SweptRun]] = {}
        for run in self.runs:
            if run.has_ended and self.metric in run.metrics:
                key = tuple(sorted((k, v) for k, v in run.params.items() if k not in SEEDS))
                alike.setdefault(key, []).append(run)
        rows = [Row(tuple(runs)) for runs in alike.values()]
        return sorted(rows, key=lambda row: -(row.mean(self.metric) or -math.inf))

    @property
    def compared(self) -> list[SweptRun]:
        """Runs with a figure: those that were trained to their end, then those that a search gave up, with
        what they had come to; of each the best first."""
        ended = [run for row in self.rows for run in row.runs]
        pruned = [run for run in self.pruned if self.metric in run.metrics]
        return ended + sorted(pruned, key=lambda run: -run.metrics[self.metric])

    @property
    def summary(self) -> dict[str, float]:
        """The sweep's own metrics: how many runs, and the best one's figures."""
        counts = {"runs": len(self.runs), "runs_failed": len(self.failed), "runs_pruned": len(self.pruned)}
        figures = {key: float(value) for key, value in counts.items()}
        for metric in ("val/accuracy", "test/accuracy"):
            if self.rows and (mean := self.rows[0].mean(metric)) is not None:
                figures[f"best/{metric}"] = mean
        return figures

    @property
    def failed(self) -> list[SweptRun]:
        """Runs that did not finish."""
        return [run for run in self.runs if run.status != "FINISHED"]

    @property
    def pruned(self) -> list[SweptRun]:
        """Runs that a search gave up on the way."""
        return [run for run in self.runs if run.pruned_at is not None]


def read(store: Store, run_id: str) -> Sweep:
    """The sweep whose parent run that is.

    Raises:
        MlflowException: if there is no such run.
        ValueError: if it is no sweep's.
    """
    parent = store.client.get_run(run_id)
    if parent.data.tags.get("lockstep.kind") != "sweep":
        raise ValueError(f"{run_id}: this run is not a sweep's parent")
    experiment = store.client.get_experiment(parent.info.experiment_id)
    found = store.runs_of_sweep(parent)
    runs = tuple(_swept_run(run) for run in found)
    ended_at = parent.info.end_time or max(
        [run.info.end_time or run.info.start_time for run in found], default=parent.info.start_time
    )
    by_val = any("val/accuracy" in run.metrics for run in runs)
    return Sweep(
        run_id=run_id,
        name=parent.info.run_name or run_id,
        experiment=experiment.name,
        experiment_id=parent.info.experiment_id,
        overrides=parent.data.tags.get(OVERRIDES, ""),
        seconds=(ended_at - parent.info.start_time) / 1e3,
        environment=json.loads(parent.data.tags.get(ENVIRONMENT, "{}")),
        runs=runs,
        swept=_swept(found),
        metric="val/accuracy" if by_val else "test/accuracy",
    )


def curve(store: Store, run: SweptRun, metric: str) -> list[tuple[int, float]]:
    """A metric's values, each with the training iterations done."""
    points = store.client.get_metric_history(run.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def download(store: Store, run: SweptRun, artifact: str, folder: Path) -> Path | None:
    """A copy of one artifact below `folder`, or None where the run has none of that name."""
    above = str(Path(artifact).parent)
    listed = store.client.list_artifacts(run.run_id, None if above == "." else above)
    if artifact not in {entry.path for entry in listed}:
        return None
    (folder / run.run_id).mkdir(exist_ok=True)
    return Path(store.client.download_artifacts(run.run_id, artifact, str(folder / run.run_id)))


def sentence(sweep: Sweep) -> str:
    """What was swept and what was found."""
    over = " and ".join(
        f"{key} ({_range([run.params.get(key, '') for run in sweep.runs])})" for key in sweep.swept
    )
    n_runs = len(sweep.runs)
    said = [f"{n_runs} run{'s' * (n_runs != 1)} on {sweep.experiment}{' over ' + over if over else ''}."]
    if rows := sweep.rows:
        best = rows[0]
        values = " ".join(f"{short(key)}={shown(best.runs[0].params.get(key, ''))}" for key in sweep.swept)
        said.append(
            f"Best by {sweep.metric.replace('val/', 'validation ').replace('test/', 'test ')}:"
            f" {values or best.runs[0].name}, {best.figure(sweep.metric)}"
        )
        if sweep.metric != "test/accuracy" and best.mean("test/accuracy") is not None:
            said[-1] += f" ({best.figure('test/accuracy')} on the test set)"
        said[-1] += "."
    for what, some in (("failed", sweep.failed), ("given up on the way", sweep.pruned)):
        if some:
            said.append(f"{len(some)} {what}.")
    return " ".join(said)


def _range(values: Sequence[str]) -> str:
    distinct = ordered(values)
    if len(distinct) <= 5:
        return ", ".join(value or "–" for value in distinct)
    if all(number(value) is not None for value in distinct):
        return f"{shown(distinct[0])} to {shown(distinct[-1])}"
    return f"{len(distinct)} values"


def short(key: str) -> str:
    """`optim.lr` → `lr`."""
    return key.rpartition(".")[2]


def shown(value: str) -> str:
    """A param's value as people read it: long numbers with four digits."""
    as_number = number(value)
    return value if as_number is None or len(value) <= 8 else f"{as_number:.4g}"


def number(text: str) -> float | None:
    """A param as a number, where it is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def ordered(values: Sequence[str]) -> list[str]:
    """Distinct values of a param: numbers by size, else by the alphabet."""
    distinct = sorted(set(values))
    if all(number(value) is not None for value in distinct):
        distinct.sort(key=lambda value: number(value) or 0.0)
    return distinct


def _swept_run(run: Run) -> SweptRun:
    tags: Mapping[str, str] = run.data.tags
    pruned_at = tags.get(PRUNED_AT)
    return SweptRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=run.data.params,
        metrics=run.data.metrics,
        pruned_at=None if pruned_at is None else int(pruned_at),
        reason=tags.get(REASON, ""),
    )


def _swept(runs: Sequence[Run]) -> tuple[str, ...]:
    """Keys that differ and that somebody typed: what follows from another key's value isn't swept itself."""
    keys = dict.fromkeys(key for run in runs for key in run.data.params if key not in SEEDS)
    differ = [key for key in keys if len({run.data.params.get(key, "") for run in runs}) > 1]
    typed = dict.fromkeys(
        override.partition("=")[0].lstrip("+")
        for run in runs
        for override in run.data.tags.get(OVERRIDES, "").split()
    )
    return tuple(key for key in typed if key in differ) or tuple(differ)
