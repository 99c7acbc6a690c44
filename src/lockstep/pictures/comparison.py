"""The learning curves of several runs, in one small picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LONGEST = 32
"""Characters of a run's name."""

Curve = Sequence[tuple[int, float]]
"""Values, each with the training iterations done."""

FEW = 30
"""Points of a curve up to which each is marked."""


def learning_curves(measures: Mapping[str, Mapping[str, Curve]], best: str | None) -> Figure:
    """Draw the curves of runs, a panel for each measure, such as `test accuracy`; a run has one colour.

    Args:
        measures: by measure and run; at most 10 runs, as many as there are colours.
        best: a run whose line is thick.
    """
    figure = Figure(figsize=(9, 3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    runs = list(dict.fromkeys(run for curves in measures.values() for run in curves))
    for axes, (measure, curves) in zip(figure.subplots(1, len(measures)), measures.items(), strict=True):
        for run, points in curves.items():
            steps, values = zip(*points, strict=True)
            style: dict[str, Any] = {"lw": 2.5, "zorder": 3} if run == best else {"lw": 1.2}
            style |= {"color": f"C{runs.index(run)}", "marker": "." if len(points) <= FEW else ""}
            axes.plot(steps, values, label=_shorten(run), **style)
        axes.set(xlabel="iteration", title=measure)
        axes.grid(color="0.9", lw=0.6)
        if measure.endswith("accuracy"):
            _show_differences(axes, curves)
    lines = figure.axes[0].get_lines()
    figure.legend(handles=lines, loc="outside right center", frameon=False, fontsize="small")
    return figure


def _shorten(name: str) -> str:
    """Return the start of a name that leaves room for the curves."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _show_differences(axes: Axes, curves: Mapping[str, Curve]) -> None:
    """Start the axis below the runs' last values: their first epochs would flatten all that matters."""
    last = [points[-1][1] for points in curves.values()]
    lowest = min(value for points in curves.values() for _, value in points)
    room = max(2 * (max(last) - min(last)), 0.02)
    axes.set_ylim(bottom=max(lowest - 0.002, min(last) - room))
