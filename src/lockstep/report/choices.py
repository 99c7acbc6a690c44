"""Which of a sweep's choices mattered: importances, and the effect of each.

Runs of a search train for different numbers of epochs. They are compared by the scores after equally many:
their last scores would tell which runs were pruned, not which choice is good.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from lockstep.execution import aside
from lockstep.report.charts import Chart, is_log, log_axis
from lockstep.report.importance import Choice, shares
from lockstep.report.wording import number, ordered, short
from lockstep.results.run_result import RunResult, epochs_text
from lockstep.tracking import recorded_run
from lockstep.tracking.store import Store
from lockstep.tracking.sweeps import Sweep

SCALE = "Viridis"
"""A colour scale that is readable in greyscale and by colour-blind readers."""

HEATMAP_VALUES = 20
"""The most values of each of two swept keys for which a heatmap is drawn."""

FEWEST_FOR_IMPORTANCE = 4


@dataclass(frozen=True)
class Scores:
    """Scores by which runs are compared.

    Attributes:
        title: what they are.
        values: by run id, the best run of the sweep first.
    """

    title: str
    values: Mapping[str, float]


def last_scores(sweep: Sweep) -> Scores:
    """Return each run's last score."""
    return Scores(sweep.metric, {str(run.run_id): run.metrics[sweep.metric] for run in sweep.compared})


def scores_of(store: Store, sweep: Sweep) -> Scores:
    """Return each run's last score; where some were pruned, that after the most epochs that all have trained.

    Runs that stopped early have no later epochs, either.
    """
    if not sweep.pruned:
        return last_scores(sweep)
    trained = [run.pruned_at or run.stopped_at or int(run.params["trainer.epochs"]) for run in sweep.compared]
    epochs, values = min(trained), {}
    for run, end in zip(sweep.compared, trained, strict=True):
        curve = recorded_run.curve(store, run, sweep.metric)
        wanted = epochs / end * max((step for step, _ in curve), default=0)  # a rung's iterations are rounded
        near = [value for step, value in curve if abs(step - wanted) <= 1 and math.isfinite(value)]
        if near:
            values[str(run.run_id)] = near[-1]
    after = "1 epoch" if epochs == 1 else f"{epochs_text(epochs)} epochs"
    return Scores(f"{sweep.metric} after {after}", values)


def importances(sweep: Sweep, scores: Scores) -> tuple[Chart | None, dict[str, float]]:
    """Return each swept key's importance for the metric, and its chart: mean decrease in impurity in a random
    forest, by Optuna's evaluator (its fANOVA takes minutes from about 50 runs on)."""
    runs = _compared(sweep, scores)
    keys = [key for key in sweep.swept if len({run.params.get(key) for run in runs}) > 1]
    if len(runs) < FEWEST_FOR_IMPORTANCE or not keys:
        return None, {}
    of_keys = {key: _choice(sweep, runs, key) for key in keys}
    found = aside.call(shares, of_keys, [scores.values[str(run.run_id)] for run in runs])
    by_share = sorted(found.items(), key=lambda item: item[1])
    figure = go.Figure(
        go.Bar(
            x=[share for _, share in by_share],
            y=[short(key) for key, _ in by_share],
            orientation="h",
            marker_color="#0072b2",
            text=[f"{share:.0%}" for _, share in by_share],
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_layout(height=120 + 45 * len(found), margin={"l": 110, "r": 30, "t": 20, "b": 40})
    figure.update_xaxes(tickformat=".0%", range=[0, 1.1 * max(found.values(), default=1)])
    said = ", ".join(f"{short(key)} {share:.0%}" for key, share in reversed(by_share))
    text = f"Importance for {scores.title} (mean decrease in impurity, of {len(runs)} runs): {said}."
    return Chart("importance", "Which choice mattered", text, figure), found


def _compared(sweep: Sweep, scores: Scores) -> list[RunResult]:
    return [run for run in sweep.compared if str(run.run_id) in scores.values]


def _choice(sweep: Sweep, runs: Sequence[RunResult], key: str) -> Choice:
    texts = [run.params.get(key, "") for run in runs]
    numbers = [number(text) for text in texts]
    known = [value for value in numbers if value is not None]
    if len(known) == len(texts):
        return Choice(known, is_log=is_log(sweep, key, known))
    return Choice(texts, ordered(texts))


def effects(sweep: Sweep, scores: Scores) -> Chart | None:
    """Return a chart of the scores against each swept key, a point per run; for a grid of two, a heatmap."""
    runs = _compared(sweep, scores)
    if len(runs) < 2 or not sweep.swept:
        return None
    if not sweep.pruned and (grid := _heatmap(sweep, runs)) is not None:
        return grid
    figure = make_subplots(
        rows=1,
        cols=len(sweep.swept),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[short(key) for key in sweep.swept],
    )
    for column, key in enumerate(sweep.swept, start=1):
        texts = [run.params.get(key, "") for run in runs]
        numbers = [number(text) for text in texts]
        known = [value for value in numbers if value is not None]
        as_numbers = len(known) == len(texts)
        figure.add_scatter(
            x=known if as_numbers else list(map(escape, texts)),
            y=[scores.values[str(run.run_id)] for run in runs],
            mode="markers",
            marker={"size": 8, "opacity": 0.7, "color": "#0072b2"},
            text=[escape(run.name) for run in runs],
            hovertemplate="%{text}<br>%{y:.4f}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        if as_numbers and is_log(sweep, key, known):
            figure.update_xaxes(row=1, col=column, **log_axis(min(known), max(known)))
        elif not as_numbers:
            figure.update_xaxes(type="category", row=1, col=column)
    figure.update_yaxes(title_text=scores.title, row=1, col=1)
    figure.update_layout(height=360, margin={"l": 60, "r": 20, "t": 50, "b": 40})
    keys = ", ".join(map(short, sweep.swept))
    text = f"{scores.title} of {len(runs)} runs against {keys}, a point for each run."
    return Chart("effects", "The effect of each choice", text, figure)


def _heatmap(sweep: Sweep, runs: Sequence[RunResult]) -> Chart | None:
    if len(sweep.swept) != 2:
        return None
    of_x, of_y = sweep.swept
    xs, ys = (ordered([run.params.get(key, "") for run in runs]) for key in (of_x, of_y))
    cells: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        place = run.params.get(of_x, ""), run.params.get(of_y, "")
        cells.setdefault(place, []).append(run.metrics[sweep.metric])
    if max(len(xs), len(ys)) > HEATMAP_VALUES or len(cells) < len(xs) * len(ys):
        return None
    means = [[sum(cells[x, y]) / len(cells[x, y]) for x in xs] for y in ys]
    figure = go.Figure(
        go.Heatmap(
            x=list(map(escape, xs)),
            y=list(map(escape, ys)),
            z=means,
            colorscale=SCALE,
            texttemplate="%{z:.4f}",
            hovertemplate=f"{short(of_x)} %{{x}}, {short(of_y)} %{{y}}: %{{z:.4f}}<extra></extra>",
            colorbar={"title": sweep.metric},
        )
    )
    figure.update_xaxes(type="category", title_text=short(of_x))
    figure.update_yaxes(type="category", title_text=short(of_y))
    figure.update_layout(height=160 + 60 * len(ys), margin={"l": 80, "r": 20, "t": 20, "b": 50})
    said = "; ".join(
        f"{short(of_y)} {y}: "
        + ", ".join(f"{short(of_x)} {x} {value:.4f}" for x, value in zip(xs, row, strict=True))
        for y, row in zip(ys, means, strict=True)
    )
    return Chart("effects", "The two choices together", f"Mean {sweep.metric}. {said}.", figure)
