"""Two sweeps side by side: what differs in their settings, their winners, and the winners' curves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lockstep.config.identity import SEEDS, is_identity
from lockstep.report import page
from lockstep.report.charts import Chart
from lockstep.report.curves import learning_curves
from lockstep.report.wording import figure, sentence, short, shown, values_of, when
from lockstep.results.run_result import RunResult
from lockstep.tracking import recorded_run
from lockstep.tracking.colors import FIRST
from lockstep.tracking.store import Store
from lockstep.tracking.sweeps import Sweep

NAME = "comparison.html"

SHOWN = 10
"""Rows of each leaderboard: the best."""

Pair = tuple[Sweep, Sweep]


def write(store: Store, pair: Pair, folder: Path) -> Path:
    """Write the comparison of two sweeps of one store, and return its path."""
    chart = _curves(store, pair)
    text = page.render(
        "comparison.html.j2",
        sides=[_side(store, sweep) for sweep in pair],
        verdict=_verdict(pair),
        settings=differences(pair),
        charts=[(chart, chart.figure.to_json())] if chart else [],
        short=short,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(text, encoding="utf-8")
    return folder / NAME


def differences(pair: Pair) -> list[tuple[str, list[str]]]:
    """Return the settings whose values differ between the sweeps: those in each, and those of each winner."""
    keys = dict.fromkeys(key for sweep in pair for run in sweep.runs for key in run.params)
    found = []
    for key in keys:
        first, second = ({run.params.get(key, "") for run in sweep.runs} for sweep in pair)
        if first != second and (is_identity(key) or key in SEEDS):
            best = [shown(run.params.get(key, "")) or "–" if run else "" for run in _winners(pair)]
            found.append((key, [*(values_of(sweep, key) for sweep in pair), *best]))
    return found


def _winners(pair: Pair) -> list[RunResult | None]:
    return [sweep.winner.representative if sweep.winner else None for sweep in pair]


def _ahead(pair: Pair) -> tuple[str, str]:
    """Return the metric that compares both, and whose winner is better by it: A, B, neither, or unknown.

    The metric is test accuracy where the sweeps are ranked differently."""
    same = pair[0].ranking == pair[1].ranking
    metric = pair[0].metric if same else "test/accuracy"
    first, second = (sweep.winner.mean(metric) if sweep.winner else None for sweep in pair)
    if first is None or second is None:
        return metric, "unknown"
    is_first = (first > second) == (pair[0].ranking.maximize or not same)
    return metric, "neither" if first == second else "A" if is_first else "B"


def _verdict(pair: Pair) -> str:
    metric, ahead = _ahead(pair)
    if ahead == "unknown":
        return f"They can't be compared: the best run of one has no {metric}."
    said = [
        f"{name} {figure(sweep.winner, metric)}"
        for name, sweep in zip("AB", pair, strict=True)
        if sweep.winner
    ]
    data = " They were trained on different data." if len({_data(sweep) for sweep in pair}) > 1 else ""
    return f"By the {metric} of their winners, {ahead} is ahead: {', '.join(said)}.{data}"


def _data(sweep: Sweep) -> frozenset[str]:
    return frozenset(run.instances_digest for run in sweep.runs)


def _side(store: Store, sweep: Sweep) -> dict[str, object]:
    rows: list[tuple[str, Sequence[str]]] = [
        (figure(row, sweep.metric), [shown(row.representative.params.get(key, "")) for key in sweep.swept])
        for row in sweep.rows[:SHOWN]
    ]
    said = {"sentence": sentence(sweep), "when": when(sweep), "link": sweep.link(store)}
    return {"sweep": sweep, "rows": rows, **said}


def _curves(store: Store, pair: Pair) -> Chart | None:
    """Return the curves of both winners, the better one's thick."""
    metric, ahead = _ahead(pair)
    named = [
        replace(run, name=f"{name}: {run.name}")
        for name, run in zip("AB", _winners(pair), strict=True)
        if run is not None
    ]
    colors = {str(run.run_id): FIRST["AB".index(run.name[0])] for run in named}
    best = named[::-1] if ahead == "B" else named
    curves = {
        key: {str(run.run_id): recorded_run.curve(store, run, key) for run in best}
        for key in ("train/loss", metric)
    }
    return learning_curves(best, curves, colors)
