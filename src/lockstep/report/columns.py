"""Which columns of a table the best run's accuracy rests on, as a chart."""

import json
from html import escape
from pathlib import Path

from plotly import graph_objects as go

from lockstep.report.charts import Chart
from lockstep.results import run_files
from lockstep.results.run_result import RunResult
from lockstep.tracking import recorded_run
from lockstep.tracking.store import Store

SHOWN = 20
"""Columns in the chart: the most important ones."""


def importance(store: Store, run: RunResult, folder: Path) -> Chart | None:
    """Return the chart of a run's column importances, None where none were measured."""
    path = recorded_run.download(store, run, run_files.COLUMNS, folder)
    if path is None:
        return None
    found = [(name, *values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()]
    shown = found[:SHOWN]
    figure = go.Figure(
        go.Bar(
            x=[mean for _, mean, _ in shown][::-1],
            y=[escape(name) for name, _, _ in shown][::-1],
            error_x={"type": "data", "array": [std for *_, std in shown][::-1]},
            orientation="h",
            marker_color="#0072b2",
            hovertemplate="%{y}: %{x:.4f}<extra></extra>",
        )
    )
    figure.update_layout(height=140 + 30 * len(shown), margin={"l": 140, "r": 30, "t": 20, "b": 60})
    figure.update_xaxes(title="test accuracy lost")
    figure.update_yaxes(type="category")  # names such as 0 and 2020 would become numbers
    said = ", ".join(f"{name} {mean:.4f}" for name, mean, _ in shown[:5])
    more = f" {len(found) - len(shown)} columns with less are left out." if len(found) > len(shown) else ""
    text = (
        f"How much test accuracy {run.name} loses if a column's values are permuted among up to"
        f" {run_files.COLUMN_ROWS:,} test instances: {said}.{more}"
    )
    return Chart("columns", "Which columns matter to the best run", text, figure)
