"""A sweep as a notebook shows it: the leaderboard as a table, and learning curves as a picture.

Plain HTML and a PNG: GitHub and saved notebooks show them, without JavaScript.
"""

import base64
import io
import sys
from html import escape
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from lockstep.pictures import comparison
from lockstep.terminal import console as terminal
from lockstep.tracking import recorded_run, sweeps
from lockstep.tracking.store import Store

SHOWN = 10
"""Runs whose curves are shown: the best."""

DPI = 100
"""Of figures on the screen."""


def table_html(table: Table, bold: str | None) -> str:
    """Return a table of the terminal as HTML.

    Args:
        bold: the name in the row that stands out, None for none.
    """
    head = "".join(f"<th>{escape(str(column.header))}</th>" for column in table.columns)
    rows = []
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        mark = "<td><b>{}</b></td>" if bold in cells else "<td>{}</td>"
        rows.append("".join(mark.format(escape(str(cell))) for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def curves(store: Store, sweep: sweeps.Sweep) -> bytes | None:
    """Return the learning curves of a sweep's best runs as PNG; None where no run has any."""
    split = "val" if any("val/accuracy" in run.metrics for run in sweep.runs) else "test"
    runs = sweep.compared[:SHOWN]
    measures = {
        metric.replace("/", " "): {
            run.name: points for run in runs if (points := recorded_run.curve(store, run, metric))
        }
        for metric in ("train/loss", f"{split}/accuracy")
    }
    if not all(measures.values()):
        return None
    best = sweep.winner.representative.name if sweep.winner else None
    written = io.BytesIO()
    comparison.learning_curves(measures, best).savefig(written, format="png")
    return written.getvalue()


def image_html(png: bytes) -> str:
    """Return an `<img>` that holds a PNG."""
    return f'<img alt="learning curves" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def display(html: str, png: bytes | None, text: str) -> None:
    """Show a table and a picture, as two outputs: GitHub hides a picture that is part of HTML.

    Args:
        text: shown where HTML is not.
    """
    from IPython.display import Image
    from IPython.display import display as show

    show({"text/html": html, "text/plain": text}, raw=True)
    if png is not None and terminal.console.is_jupyter:
        show(Image(png))


def show_figures() -> None:
    """Let the notebook show figures as pictures, as it does once pyplot is loaded; elsewhere do nothing."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    if Figure not in shell.display_formatter.formatters["image/png"].type_printers:
        from IPython.core.pylabtools import select_figure_formats

        select_figure_formats(shell, {"png"}, dpi=DPI)  # artifacts have more: a notebook would grow large
