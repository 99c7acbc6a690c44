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


def _verdict(pair: Pair) -> str:
    """Return which sweep's winner is better, by a metric that ranks both or else by test accuracy."""
    same = pair[0].ranking == pair[1].ranking
    metric = pair[0].metric if same else "test/accuracy"
    scores = [sweep.winner.mean(metric) if sweep.winner else None for sweep in pair]
    first, second = scores
    if first is None or second is None:
        return "They can't be compared: one of them has no winner with a score."
    maximize = pair[0].ranking.maximize if same else True
    ahead = "neither" if first == second else "A" if (first > second) == maximize else "B"
    said = [
        f"{name} {figure(sweep.winner, metric)}"
        for name, sweep in zip("AB", pair, strict=True)
        if sweep.winner
    ]
    data = " They were trained on different data." if len({_data(sweep) for sweep in pair}) > 1 else ""
    return f"By the {metric} of their winners, {ahead} is ahead: {', '.join(said)}.{data}"


def _data(sweep: Sweep) -> frozenset[str]:
    return frozenset(run.data_digest for run in sweep.runs)


def _side(store: Store, sweep: Sweep) -> dict[str, object]:
    rows: list[tuple[str, Sequence[str]]] = [
        (figure(row, sweep.metric), [shown(row.representative.params.get(key, "")) for key in sweep.swept])
        for row in sweep.rows[:SHOWN]
    ]
    said = {"sentence": sentence(sweep), "when": when(sweep), "link": sweep.link(store)}
    return {"sweep": sweep, "rows": rows, **said}


def _curves(store: Store, pair: Pair) -> Chart | None:
    """Return the curves of both winners, A's in the first colour."""
    best = [
        replace(run, name=f"{name}: {run.name}")
        for name, run in zip("AB", _winners(pair), strict=True)
        if run is not None
    ]
    metrics = dict.fromkeys(("train/loss", pair[0].metric, pair[1].metric))
    curves = {
        metric: {str(run.run_id): recorded_run.curve(store, run, metric) for run in best}
        for metric in metrics
    }
    return learning_curves(best, curves, {str(run.run_id): FIRST[place] for place, run in enumerate(best)})
