"""Whether runs are better than always predicting the most frequent class."""

import statistics
from collections.abc import Iterable

from lockstep.results.winner import Repeats

NAMED = 3
"""The most runs that a warning names."""


def warning(rows: Iterable[Repeats]) -> str:
    """Return a sentence that names runs without a better test accuracy; empty if there are none."""
    found = [said for row in rows if (said := _compared(row))]
    if not found:
        return ""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"No better than always predicting the most frequent class: {', '.join(found[:NAMED])}{more}."


def _compared(row: Repeats) -> str:
    accuracy = row.mean("test/accuracy")
    of_class = [run.majority_accuracy for run in row.runs if run.majority_accuracy is not None]
    if accuracy is None or not of_class or accuracy > (mean := statistics.fmean(of_class)):
        return ""
    return f"{row.name} (test accuracy {accuracy:.4f}, that class {mean:.4f})"
