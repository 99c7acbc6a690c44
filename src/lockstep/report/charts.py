"""Interactive figures of a sweep: its runs, their curves, and which settings mattered.

Figures have no text or background colour: the page sets those, light or dark. Plotly reads some HTML in
texts, so names and values are escaped.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from lockstep.report.wording import number, ordered, short, shown
from lockstep.results.run_result import RunResult
from lockstep.tracking.sweeps import Sweep

SCALE = "Viridis"
"""A colour scale that is readable in greyscale and by colour-blind readers."""

SHADES = [[0, "#8fb3d9"], [1, "#d55e00"]]
"""Colours of lines, from the worst to the best run: visible on light and on dark."""

HEATMAP_VALUES = 20
"""The most values of each of two swept keys for which a heatmap is drawn."""

NAMED_VALUES = 6
"""The most numbers that an axis names as categories; more numbers get a scale."""

FEWEST_FOR_IMPORTANCE = 4
LOG_SPREAD = 20.0
"""The ratio of a key's greatest value to its least from which its axis is logarithmic."""


@dataclass(frozen=True)
class Chart:
    """A figure with its description.

    Attributes:
        name: its id on the page.
        title: its heading.
        text: its content in words, for readers who can't see it.
    """

    name: str
    title: str
    text: str
    figure: go.Figure


def parallel_coordinates(sweep: Sweep) -> Chart | None:
    """Return a chart with a line per run through its swept values to its metric, None if nothing is swept."""
    runs = sweep.compared
    if len(runs) < 2 or not sweep.swept:
        return None
    scores = [run.metrics[sweep.metric] for run in runs]
    dimensions = [_dimension(key, [run.params.get(key, "") for run in runs]) for key in sweep.swept]
    dimensions.append({"label": sweep.metric, "values": scores})
    line = {"color": scores, "colorscale": SHADES, "showscale": False}
    line["reversescale"] = not sweep.ranking.maximize
    figure = go.Figure(go.Parcoords(line=line, dimensions=dimensions, labelangle=0))
    figure.update_layout(height=420, margin={"l": 80, "r": 60, "t": 60, "b": 30})
    keys = ", ".join(map(short, sweep.swept))
    text = f"Parallel coordinates of {len(runs)} runs over {keys}; the last axis is {sweep.metric}."
    text += _of_pruned(sweep)
    return Chart("parallel", "All runs at once", text, figure)


def _of_pruned(sweep: Sweep) -> str:
    return " Pruned runs count with their last score." if sweep.pruned else ""


def _dimension(key: str, values: Sequence[str]) -> dict[str, object]:
    distinct = ordered(values)
    numbers = [number(value) for value in values]
    if len(distinct) > NAMED_VALUES and None not in numbers:
        return {"label": short(key), "values": numbers}
    place = {value: index for index, value in enumerate(distinct)}
    return {
        "label": short(key),
        "values": [place[value] for value in values],
        "tickvals": list(place.values()),
        "ticktext": [escape(shown(value)) or "–" for value in distinct],
        "range": [-0.1, len(distinct) - 0.9],
    }


def importances(sweep: Sweep) -> tuple[Chart | None, dict[str, float]]:
    """Return each swept key's importance for the metric, and its chart: mean decrease in impurity in a random
    forest, by Optuna's evaluator (its fANOVA takes minutes from about 50 runs on)."""
    runs = sweep.compared
    keys = [key for key in sweep.swept if len({run.params.get(key) for run in runs}) > 1]
    if len(runs) < FEWEST_FOR_IMPORTANCE or not keys:
        return None, {}
    found = _shares(runs, keys, sweep.metric)
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
    text = f"Importance for {sweep.metric} (mean decrease in impurity, of {len(runs)} runs): {said}."
    text += _of_pruned(sweep)
    return Chart("importance", "Which choice mattered", text, figure), found


def _shares(runs: Sequence[RunResult], keys: Sequence[str], metric: str) -> dict[str, float]:
    space: dict[str, BaseDistribution] = {}
    values: dict[str, list[object]] = {}
    for key in keys:
        texts = [run.params.get(key, "") for run in runs]
        numbers = [number(text) for text in texts]
        known = [value for value in numbers if value is not None]
        if len(known) == len(texts):
            low, high = min(known), max(known)
            space[key] = FloatDistribution(low, high, log=low > 0 and high / low >= LOG_SPREAD)
            values[key] = list(known)
        else:
            space[key], values[key] = CategoricalDistribution(ordered(texts)), list(texts)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={key: values[key][k] for key in keys},
                distributions=space,
                value=run.metrics[metric],
            )
            for k, run in enumerate(runs)
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {key: float(share) for key, share in shares.items()}


def effects(sweep: Sweep) -> Chart | None:
    """Return a chart of the metric against each swept key, a point per run; for a grid of two, a heatmap."""
    runs = sweep.compared
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
            y=[run.metrics[sweep.metric] for run in runs],
            mode="markers",
            marker={"size": 8, "opacity": 0.7, "color": "#0072b2"},
            text=[escape(run.name) for run in runs],
            hovertemplate="%{text}<br>%{y:.4f}<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        if as_numbers and min(known) > 0 and max(known) / min(known) >= LOG_SPREAD:
            figure.update_xaxes(type="log", row=1, col=column)
        elif not as_numbers:
            figure.update_xaxes(type="category", row=1, col=column)
    figure.update_yaxes(title_text=sweep.metric, row=1, col=1)
    figure.update_layout(height=360, margin={"l": 60, "r": 20, "t": 50, "b": 40})
    keys = ", ".join(map(short, sweep.swept))
    text = f"{sweep.metric} of {len(runs)} runs against {keys}, a point for each run."
    text += _of_pruned(sweep)
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
