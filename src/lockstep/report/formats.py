"""The leaderboard as a table for a paper: CSV, LaTeX, Markdown. Mean, sample standard deviation, n."""

import csv
import io
from collections.abc import Sequence

from lockstep.report.wording import short, shown
from lockstep.results.winner import Repeats
from lockstep.tracking.sweeps import Sweep

FORMATS = ("csv", "latex", "markdown")

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{bracket: f"{{{bracket}}}" for bracket in "[]"},  # at a row's start, an argument of the one before
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}
"""What LaTeX would not print as it stands."""


def table(sweep: Sweep, form: str) -> str:
    """Return the leaderboard in one of FORMATS, with the command and commit as a comment.

    CSV has no comments of its own; pandas and R skip lines that start with `#` (comment="#").
    """
    metrics = [
        metric
        for metric in dict.fromkeys((sweep.metric, "test/accuracy", "test/loss"))
        if any(row.mean(metric) is not None for row in sweep.rows)
    ]
    return {"csv": _csv, "latex": _latex, "markdown": _markdown}[form](sweep, metrics)


def _csv(sweep: Sweep, metrics: Sequence[str]) -> str:
    written = io.StringIO()
    written.writelines(f"# {line}\n" for line in _comment(sweep))
    rows = csv.writer(written, lineterminator="\n")
    of_metrics = [name for metric in metrics for name in (f"{metric} mean", f"{metric} std")]
    rows.writerow([*sweep.swept, "n", *of_metrics])
    for row in sweep.rows:
        figures = [value for metric in metrics for value in (row.mean(metric), row.std(metric))]
        rows.writerow([*_values(sweep, row), len(row.runs), *figures])
    return written.getvalue()


def _latex(sweep: Sweep, metrics: Sequence[str]) -> str:
    def cell(row: Repeats, metric: str) -> str:
        found = _figure(row, metric, r" \pm ")
        return f"${found}$" if found else "--"

    headings = [_escaped(short(key)) for key in sweep.swept] + ["$n$", *map(_escaped, metrics)]
    rows = [
        [*(_escaped(shown(value)) for value in _values(sweep, row)), str(len(row.runs))]
        + [cell(row, metric) for metric in metrics]
        for row in sweep.rows
    ]
    lines = [
        *(f"% {line}" for line in _comment(sweep)),
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{'l' * len(sweep.swept)}r{'r' * len(metrics)}}}",
        r"\toprule",
        " & ".join(headings) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _markdown(sweep: Sweep, metrics: Sequence[str]) -> str:
    headings = [short(key) for key in sweep.swept] + ["n", *metrics]
    rows = [
        [*map(shown, _values(sweep, row)), str(len(row.runs))]
        + [_figure(row, metric, " ± ") or "–" for metric in metrics]
        for row in sweep.rows
    ]
    comment = "\n".join(_comment(sweep)).replace("-->", "--&gt;")
    lines = [headings, ["---"] * len(sweep.swept) + ["--:"] * (1 + len(metrics)), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join([f"<!-- {comment} -->", "", *(f"| {' | '.join(line)} |" for line in cells)]) + "\n"


def _values(sweep: Sweep, row: Repeats) -> list[str]:
    return [row.representative.params.get(key, "") for key in sweep.swept]


def _figure(row: Repeats, metric: str, between: str) -> str:
    mean, std = row.mean(metric), row.std(metric)
    if mean is None:
        return ""
    return f"{mean:.4f}" if std is None else f"{mean:.4f}{between}{std:.4f}"


def _comment(sweep: Sweep) -> list[str]:
    return [*sweep.command.splitlines(), *([f"commit {sweep.commit}"] if sweep.commit else [])]


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
