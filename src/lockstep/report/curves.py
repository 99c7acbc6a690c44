"""The learning curves of a sweep's runs."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from lockstep.report.charts import Chart, log_axis
from lockstep.results.run_result import RunResult

NAMED = 10
"""The most runs that a legend names; more can't be told apart."""

FAR = 5.0
"""A curve sets the axis if, in the later half of training, its loss (its share of errors) stays below this
multiple of the median run's. (MNIST: learning rates of 0.01 and 0.001 give losses a factor of 4 apart.)"""

Points = Sequence[tuple[int, float]]
"""A curve: training iterations done, value."""


def learning_curves(
    runs: Sequence[RunResult], curves: Mapping[str, Mapping[str, Points]], colors: Mapping[str, str]
) -> Chart | None:
    """Return a chart of runs' curves, a panel for each metric, the best run's on top; None without points.

    Args:
        runs: the best first.
        curves: by metric and by run id.
        colors: by run id.
    """
    drawn = {metric: of for metric, of in curves.items() if any(of.values())}
    if not drawn:
        return None
    figure = make_subplots(rows=1, cols=len(drawn), subplot_titles=list(drawn), horizontal_spacing=0.1)
    shown = [run for run in runs if any(of.get(str(run.run_id)) for of in drawn.values())]
    left_out = has_restored = False
    for column, (metric, of_runs) in enumerate(drawn.items(), start=1):
        for run in reversed(shown):
            points = of_runs.get(str(run.run_id), ())
            trace = _trace(run, points, colors.get(str(run.run_id)), run is shown[0])
            figure.add_trace(trace.update(showlegend=column == 1), row=1, col=column)
            if not metric.startswith("train/") and 0 < (run.restored_epoch or 0) <= len(points):
                figure.add_trace(_restored(run, points, trace), row=1, col=column)
                has_restored = True
        figure.update_xaxes(title_text="training iterations", row=1, col=column)
        ends, is_whole = _range(metric, of_runs.values())
        axis = {} if _is_share(metric) else log_axis(*(10**end for end in ends))
        figure.update_yaxes(range=ends, row=1, col=column, **axis)
        left_out |= not is_whole
    has_legend = 1 < len(shown) <= NAMED
    figure.update_layout(
        height=420 + 26 * has_legend * len(shown),
        margin={"l": 50, "r": 20, "t": 50, "b": 50},
        hovermode="closest",
        hoverdistance=60,
        showlegend=has_legend,
        legend={"orientation": "v", "y": -0.2, "yanchor": "top", "x": 0, "traceorder": "reversed"},
    )
    text = f"{' and '.join(drawn)} over the iterations of {len(shown)} runs; the best one's line is thick."
    if has_restored:
        text += " A circle marks the epoch whose weights a run restored."
    if left_out:
        text += " Some points lie outside of the axes: a double click shows all, and a second one goes back."
    return Chart("curves", "Learning curves", text, figure)


def _trace(run: RunResult, points: Points, color: str | None, is_best: bool) -> go.Scatter:
    return go.Scatter(
        x=[step for step, _ in points],
        y=[value for _, value in points],
        name=escape(run.name),
        legendgroup=str(run.run_id),
        mode="lines" if len(points) > 1 else "markers",
        line={"width": 3 if is_best else 1.5, "color": color},
        opacity=1.0 if is_best else 0.8,
        hovertemplate="%{y:.4f} after %{x} iterations<extra>" + escape(run.name) + "</extra>",
    )


def _restored(run: RunResult, points: Points, trace: go.Scatter) -> go.Scatter:
    """Return the mark of a run's restored epoch on its curve, which has a point for each epoch."""
    epoch = run.restored_epoch or len(points)
    step, value = points[epoch - 1]
    return go.Scatter(
        x=[step],
        y=[value],
        name=trace.name,
        legendgroup=trace.legendgroup,
        showlegend=False,
        mode="markers",
        marker={"symbol": "circle-open", "size": 10, "color": trace.line.color, "line": {"width": 2}},
        hovertemplate=f"%{{y:.4f}} after epoch {epoch}, restored<extra>{trace.name}</extra>",
    )


def _is_share(metric: str) -> bool:
    return not metric.endswith("loss")


def _range(metric: str, curves: Iterable[Points]) -> tuple[tuple[float, float], bool]:
    """Return the ends of an axis, a loss's as logarithms to base 10, and whether all points are within.

    Curves FAR from the median one don't count; of an accuracy, neither does the first half of training.
    """
    values = [[value for _, value in points if math.isfinite(value)] for points in curves]
    values = [of_run for of_run in values if of_run]
    if not values:
        return (0.0, 1.0), True

    def badness(of_run: Sequence[float]) -> float:
        later = of_run[len(of_run) // 2 :] if len(of_run) > 2 else of_run
        return 1 - min(later) if _is_share(metric) else max(later)

    limit = FAR * statistics.median_low(map(badness, values))
    near = [of_run for of_run in values if badness(of_run) <= limit]
    flat = [value for of_run in values for value in of_run]
    high = max(value for of_run in near for value in of_run)
    if _is_share(metric):
        low = 1 - max(map(badness, near))
        margin = 0.05 * (high - low) or 0.01
        return (low - margin, high + margin), low <= min(flat)
    low = min((value for value in flat if value > 0), default=1e-6)
    margin = 0.05 * math.log10(high / low) or 0.05
    return (math.log10(low) - margin, math.log10(high) + margin), max(flat) <= high
