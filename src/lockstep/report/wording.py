"""A sweep in a sentence, and its settings' values formatted for readers."""

import math
from collections.abc import Sequence
from datetime import datetime

from lockstep.results import majority
from lockstep.results.winner import Repeats
from lockstep.tracking.sweeps import Sweep

MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
"""Whatever the locale."""


def sentence(sweep: Sweep) -> str:
    """Return sentences that say what was swept and which run is best."""
    over = " and ".join(f"{key} ({values_of(sweep, key)})" for key in sweep.swept)
    n_runs = len(sweep.runs)
    said = [f"{n_runs} run{'s' * (n_runs != 1)} on {sweep.experiment}{' over ' + over if over else ''}."]
    if best := sweep.winner:
        params = best.representative.params
        values = " ".join(f"{short(key)}={shown(params.get(key, ''))}" for key in sweep.swept)
        metric = sweep.metric.replace("val/", "validation ").replace("test/", "test ").replace("_", " ")
        if len(sweep.rows) == 1:  # nothing to be better than
            said.append(f"{metric.capitalize()}: {figure(best, sweep.metric)}")
        else:
            said.append(f"Best by {metric}: {values or best.name}, {figure(best, sweep.metric)}")
        if sweep.metric != "test/accuracy" and best.mean("test/accuracy") is not None:
            said[-1] += f" ({figure(best, 'test/accuracy')} on the test set)"
        said[-1] += "."
    stopped = [run for run in sweep.runs if run.stopped_at is not None]
    for what, some in (("failed", sweep.failed), ("pruned", sweep.pruned), ("stopped early", stopped)):
        if some:
            said.append(f"{len(some)} {what}.")
    return " ".join([*said, *filter(None, [majority.warning(sweep.rows)])])


def figure(row: Repeats, metric: str) -> str:
    """Return the mean of repeats, with ± std for several runs; empty where no run has the metric."""
    mean, std = row.mean(metric), row.std(metric)
    if mean is None:
        return ""
    if metric.startswith("time/"):
        return f"{mean:.1f}"
    return f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f} (n = {len(row.runs)})"


def when(sweep: Sweep) -> str:
    """Return a sweep's date, duration and commit in words."""
    day = datetime.fromtimestamp(sweep.started_at / 1000)
    said = [f"{day.day} {MONTHS[day.month - 1]} {day.year}", duration(sweep.seconds)]
    return ", ".join(said + [f"commit {sweep.commit[:7]}"] * bool(sweep.commit))


def duration(seconds: float) -> str:
    """Return seconds in words, such as 2 minutes 5 seconds."""
    minutes, rest = divmod(round(seconds), 60)
    parts = {"hour": minutes // 60, "minute": minutes % 60, "second": rest}
    said = [f"{number} {unit}{'s' * (number != 1)}" for unit, number in parts.items() if number]
    return " ".join(said) or "less than a second"


def values_of(sweep: Sweep, key: str) -> str:
    """Return the values that a sweep's runs have of a key."""
    return _range([run.params.get(key, "") for run in sweep.runs])


def _range(values: Sequence[str]) -> str:
    distinct = ordered(values)
    if len(distinct) <= 5:
        return ", ".join(value or "–" for value in distinct)
    if all(number(value) is not None for value in distinct):
        return f"{shown(distinct[0])} to {shown(distinct[-1])}"
    return f"{len(distinct)} values"


def short(key: str) -> str:
    """Shorten `optim.lr` to `lr`."""
    return key.rpartition(".")[2]


def shown(value: str) -> str:
    """Return a param's value for readers: numbers of more than 8 characters with 4 significant digits."""
    as_number = number(value)
    return value if as_number is None or len(value) <= 8 else f"{as_number:.4g}"


def number(text: str) -> float | None:
    """Return a param as a number, None where it isn't one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def ordered(values: Sequence[str]) -> list[str]:
    """Return the distinct values of a param: numbers by size, others alphabetically."""
    distinct = sorted(set(values))
    if all(number(value) is not None for value in distinct):
        distinct.sort(key=lambda value: number(value) or 0.0)
    return distinct
