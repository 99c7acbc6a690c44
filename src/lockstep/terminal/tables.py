"""The table of runs that have ended, best first, and the plan of a dry run."""

from collections.abc import Sequence

from rich.table import Table

from lockstep.execution.plan import Plan
from lockstep.results.run_result import RunResult, short_length
from lockstep.results.winner import Repeats
from lockstep.terminal.console import console

COLUMNS = {
    "val accuracy": ("val/accuracy", ".4f"),
    "test accuracy": ("test/accuracy", ".4f"),
    "best": ("test/accuracy_best", ".4f"),
    "test loss": ("test/loss", ".4f"),
    "training": ("time/train_seconds", ".1f"),
}


DROPPED = ("test loss", "training", "best")
"""Columns that a narrow terminal lacks, the least important first."""

FOLDED = {"run": 12, "status": len("FINISHED")}
"""Columns whose texts are folded, and the least width of each."""


def leaderboard(
    results: Sequence[RunResult], rows: Sequence[Repeats], metric: str, width: int | None = None
) -> Table:
    """Return the table of runs: failures first, then complete runs, repeats as mean ± std.

    Args:
        rows: complete runs, as `ranked` returns them.
        metric: the metric that they are ranked by.
        width: in which it should fit, None for the console's.
    """
    failed = [Repeats((result,)) for result in results if result.status != "FINISHED"]
    columns = _columns(
        [*failed, *rows], with_val=any("val/accuracy" in run.metrics for run in results), metric=metric
    )
    for heading in DROPPED:
        if sum(_width(*column) + 2 for column in columns.items()) - 2 > (width or console.width):
            columns.pop(heading, None)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, texts in columns.items():
        is_figure = heading not in ("run", "status", "id")
        table.add_column(
            heading,
            justify="right" if is_figure else "left",
            overflow="fold",
            min_width=_width(heading, texts),
            no_wrap=heading not in FOLDED,
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _columns(rows: Sequence[Repeats], with_val: bool, metric: str) -> dict[str, list[str]]:
    """Return the texts of each column by its heading.

    Args:
        with_val: whether runs have a validation split: then the best epoch's test accuracy is left out.
    """
    repeated = any(len(row.runs) > 1 for row in rows)
    measured = dict(COLUMNS)
    if with_val or repeated:
        del measured["best"]
    if not with_val:
        del measured["val accuracy"]
    if metric not in [measure for measure, _ in measured.values()]:
        measured = {metric.replace("/", " "): (metric, ".4f"), **measured}
    columns = {heading: [_cell(row, *column) for row in rows] for heading, column in measured.items()}
    are_stored = [all(run.is_stored for run in row.runs) for row in rows]
    seconds = zip(columns["training"], are_stored, strict=True)
    columns["training"] = ["stored" if is_stored else f"{text} s" for text, is_stored in seconds]
    ids = [row.representative.run_id or "" for row in rows]
    n_shown = short_length(ids)
    return {
        "run": [row.name for row in rows],
        **({"n": [str(len(row.runs)) for row in rows]} if repeated else {}),
        **columns,
        "status": [
            f"{run.status}: {run.reason}" if run.reason else run.status
            for run, *_ in (row.runs for row in rows)
        ],
        "id": [run_id[:n_shown] for run_id in ids],
    }


def _width(heading: str, texts: Sequence[str]) -> int:
    return FOLDED.get(heading) or max(map(len, (heading, *texts)))


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
