"""A colour for each run of a sweep, the same in the report and in MLflow's charts."""

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

COLOR = "mlflow.runColor"
"""The tag of a run from which MLflow's UI takes the run's colour; a user's choice is kept there, too."""

FIRST = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, for colour-blind readers (jfly.uni-koeln.de/color): those seen on light and on dark."""

GOLDEN_ANGLE = 0.381966
"""Of a full turn: hues that lie so far apart, one after the other, are never close to an earlier one."""


def colors_of(tags: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """Return the colours of runs by their ids, one for each: a run's own, unless a better run has it, too.

    Args:
        tags: the runs' ids and tags, the best run first.
    """
    own: dict[str, str] = {}
    for run_id, of_run in tags:
        if (color := of_run.get(COLOR)) and color not in own.values():
            own[run_id] = color
    unused = (color for color in _palette() if color not in own.values())
    return {run_id: own.get(run_id) or next(unused) for run_id, _ in tags}


def _palette() -> Iterator[str]:
    yield from FIRST
    for place in count():
        lightness = (0.45, 0.6, 0.52)[place % 3]
        rgb = colorsys.hls_to_rgb(place * GOLDEN_ANGLE % 1, lightness, 0.6)
        yield "#" + "".join(f"{round(255 * part):02x}" for part in rgb)
