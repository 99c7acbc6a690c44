"""The table of runs that have ended, best first; what a dry run shows."""

from collections.abc import Sequence

from rich.table import Table

from lockstep.data.description import DataDescription
from lockstep.data.labels import listed
from lockstep.data.table_model import Column as FittedColumn
from lockstep.execution.plan import Plan
from lockstep.results.run_result import RunResult, short_length
from lockstep.results.winner import Repeats
from lockstep.terminal.columns import Column, fitted
from lockstep.terminal.console import printable

SECONDS = "time/train_seconds"

COLUMNS = {
    "val accuracy": ("val/accuracy", ".4f"),
    "test accuracy": ("test/accuracy", ".4f"),
    "best": ("test/accuracy_best", ".4f"),
    "test loss": ("test/loss", ".4f"),
    "training": (SECONDS, ".1f"),
}

IMPORTANCE = ("test/accuracy_best", "test/loss", SECONDS)
"""Metrics whose columns are left out where there is no room, in this order; the others are always shown."""


def leaderboard(results: Sequence[RunResult], rows: Sequence[Repeats], metric: str, width: int) -> Table:
    """Return the table of runs: failures first, then complete runs, repeats as mean ± std.

    Args:
        rows: complete runs, as `ranked` returns them.
        metric: the metric that they are ranked by.
        width: see `fitted`.
    """
    failed = [Repeats((result,)) for result in results if result.status != "FINISHED"]
    repeated = any(len(row.runs) > 1 for row in rows)
    with_val = any("val/accuracy" in result.metrics for result in results)
    columns = {
        heading: column
        for heading, column in COLUMNS.items()
        # With a validation set to choose by, the best epoch's test accuracy is left out.
        if heading != ("best" if with_val or repeated else "val accuracy")
        if with_val or heading != "val accuracy"
    }
    if metric not in [column for column, _ in columns.values()]:
        columns = {metric.replace("/", " ").replace("_", " "): (metric, ".4f"), **columns}
    shown = [*failed, *rows]
    figures = [
        Column(
            heading,
            [_figure(row, metric, form) for row in shown],
            IMPORTANCE.index(metric) if metric in IMPORTANCE else None,
        )
        for heading, (metric, form) in columns.items()
    ]
    if repeated:
        figures.insert(0, Column("n", [str(len(row.runs)) for row in shown]))
    status = Column("status", [_status(row) for row in shown], kind="words")
    ids = [row.representative.run_id or "" for row in shown]
    short = Column("id", [run_id[: short_length(ids)] for run_id in ids], kind="word")
    return fitted(Column("run", [row.name for row in shown]), [*figures, status, short], width)


def _status(row: Repeats) -> str:
    run = row.runs[0]
    said = run.reason or row.stopping
    return run.status + (f": {said}" if said else "")


def _figure(row: Repeats, metric: str, form: str) -> str:
    if metric != SECONDS:
        return _cell(row, metric, form)
    return "stored" if all(run.is_stored for run in row.runs) else f"{_cell(row, metric, form)} s"


def _cell(row: Repeats, metric: str, form: str) -> str:
    mean, std = row.mean(metric), row.std(metric)
    if mean is None:
        return ""
    return f"{mean:{form}}" if std is None or metric.startswith("time/") else f"{mean:{form}} ± {std:{form}}"


def plan_table(planned: Plan, names: Sequence[str], flops: float) -> Table:
    """Return a dry run's table: each array's runs, their training time and the memory of their state.

    Args:
        flops: FLOP/s of a large GEMM on one thread of this machine.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("array")
    table.add_column("runs", overflow="fold")
    for heading in ("training", "memory"):
        table.add_column(heading, justify="right")
    for index, array in enumerate(planned.arrays, start=1):
        runs = "\n".join(names[k] for k in array.runs)
        table.add_row(str(index), runs, f"{array.cost / flops:.1f} s", f"{array.bytes / 2**20:.1f} MiB")
    return table


def plan_summary(planned: Plan, flops: float) -> str:
    """Return the plan's totals as a sentence; `flops` as for `plan_table`."""
    n_runs = sum(len(array.runs) for array in planned.arrays)
    numbers = ((n_runs, "run"), (len(planned.arrays), "array"), (planned.n_workers, "worker"))
    runs, arrays, workers = (f"{n:,} {what}{'s' * (n != 1)}" for n, what in numbers)
    return (
        f"{runs} in {arrays} on {workers}: about {planned.cost / flops:.0f} s of training, and"
        f" {planned.bytes / 2**20:.1f} MiB at once for weights, gradients and optimizers, beside the data."
    )


def columns_table(data: DataDescription, drop: Sequence[str], width: int) -> Table:
    """Return the table of what each column of the user's table becomes.

    Args:
        drop: columns that the user leaves out.
        width: see `fitted`.
    """
    assert data.table is not None
    rows = [
        *((c.name, f"{c.n_missing:,}", f"{len(c.feature_names):,}", _becomes(c)) for c in data.table.columns),
        *((name, "", "0", f"left out: it {why}") for name, why in data.table.left_out),
        *((name, "", "0", "left out: data.drop") for name in drop),
        (data.table.target, "", "", f"target, {data.n_classes:,} classes: {listed(data.class_names)}"),
    ]
    names, missing, n_features, becomes = zip(*[map(printable, row) for row in rows], strict=True)
    columns = [Column("features", n_features), Column("becomes", becomes, kind="words")]
    if any(column.n_missing for column in data.table.columns):
        columns.insert(0, Column("missing", missing, importance=0))
    return fitted(Column("column", [name or '""' for name in names]), columns, width)


def _becomes(column: FittedColumn) -> str:
    if column.categories is None:
        return f"(number - {column.mean:.4g}) / {column.scale:.4g}"
    return f"one-hot: {listed(column.categories)}"
