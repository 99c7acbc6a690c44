"""Interactive figures of a sweep: what a chart is, and all runs in one.

Figures have no text or background colour: the page sets those, light or dark. Plotly reads some HTML in
texts, so names and values are escaped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from plotly import graph_objects as go

from lockstep.report.wording import number, ordered, short, shown
from lockstep.tracking.sweeps import Sweep

SHADES = [[0, "#8fb3d9"], [1, "#d55e00"]]
"""Colours of lines, from the worst to the best run: visible on light and on dark."""

NAMED_VALUES = 6
"""The most numbers that an axis names as categories; more numbers get a scale."""

LOG_SPREAD = 20.0
"""Where no scales were recorded, an axis is logarithmic from this ratio of its ends on."""


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
    dimensions = [_dimension(sweep, key, [run.params.get(key, "") for run in runs]) for key in sweep.swept]
    dimensions.append({"label": sweep.metric, "values": scores})
    line = {"color": scores, "colorscale": SHADES, "showscale": False}
    line["reversescale"] = not sweep.ranking.maximize
    figure = go.Figure(go.Parcoords(line=line, dimensions=dimensions, labelangle=0))
    figure.update_layout(height=420, margin={"l": 80, "r": 60, "t": 60, "b": 30})
    keys = ", ".join(map(short, sweep.swept))
    text = f"Parallel coordinates of {len(runs)} runs over {keys}; the last axis is {sweep.metric}."
    if sweep.pruned:
        text += " Pruned runs count with their last score."
    return Chart("parallel", "All runs at once", text, figure)


def is_log(sweep: Sweep, key: str, numbers: Sequence[float]) -> bool:
    """Tell whether a key's axis is logarithmic: as it was searched.

    A grid's list of values has no scale. Its axis is logarithmic if the logarithms of its values are more
    evenly spaced than the values, as of 0.001, 0.01, 0.1, or 64, 128, 256: so each value has its room.
    """
    distinct = sorted(set(numbers))
    if not distinct or distinct[0] <= 0:
        return False
    if sweep.scales is None:
        return distinct[-1] / distinct[0] >= LOG_SPREAD
    if key in sweep.scales:
        return sweep.scales[key] == "log"
    return len(distinct) > 2 and _unevenness(list(map(math.log, distinct))) < _unevenness(distinct)


def log_axis(low: float, high: float) -> dict[str, object]:
    """Return a logarithmic axis for numbers from `low` to `high`.

    From a decade on, its ticks are at 1, 2 and 5 of each, or at 1 of many, also beyond the ends, for those
    who zoom out. Plotly would write ticks between decades as a single digit: 5 for 0.5.
    """
    if high / low < 10:
        return {"type": "log"}  # where Plotly writes whole numbers
    digits = (1, 2, 5) if high / low < 1e3 else (1,)
    decades = range(math.floor(math.log10(low)) - 3, math.ceil(math.log10(high)) + 4)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _unevenness(values: Sequence[float]) -> float:
    """Return the largest gap of sorted values as a multiple of the smallest."""
    gaps = [after - before for before, after in pairwise(values)]
    return max(gaps) / min(gaps)


def _dimension(sweep: Sweep, key: str, values: Sequence[str]) -> dict[str, object]:
    distinct = ordered(values)
    numbers = [value for value in map(number, values) if value is not None]
    if len(distinct) > NAMED_VALUES and len(numbers) == len(values):
        if not is_log(sweep, key, numbers):
            return {"label": short(key), "values": numbers}
        return {"label": short(key), **_log_dimension(numbers)}
    place = {value: index for index, value in enumerate(distinct)}
    return {
        "label": short(key),
        "values": [place[value] for value in values],
        "tickvals": list(place.values()),
        "ticktext": [escape(shown(value)) or "–" for value in distinct],
        "range": [-0.1, len(distinct) - 0.9],
    }


def _log_dimension(numbers: Sequence[float]) -> dict[str, object]:
    """Return the logarithms of numbers, with ticks at both ends, and at 1, 2 and 5 of each decade."""
    low, high = math.log10(min(numbers)), math.log10(max(numbers))
    decades = range(math.floor(low), math.ceil(high) + 1)
    round_ones = [math.log10(digit) + decade for decade in decades for digit in (1, 2, 5)]
    room = 0.06 * (high - low)  # for a tick's text
    ticks = [low, *(tick for tick in round_ones if low + room < tick < high - room), high]
    texts = [f"{10**tick:.3g}" for tick in ticks]
    return {"values": list(map(math.log10, numbers)), "tickvals": ticks, "ticktext": texts}
