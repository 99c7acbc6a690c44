"""One sitting: how long things take, round by round, and the lines that are printed and kept.

A machine's speed drifts within minutes. So the sides of a comparison alternate, ratios are taken within each
round, and tables give medians over the rounds.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

QUICK = bool(os.environ.get("QUICK"))  # make bench QUICK=1
ROUNDS = 1 if QUICK else 3
EPOCHS = 3 if QUICK else 10  # of Lockstep's runs, with result files; a peer trains one epoch per call

console = Console(soft_wrap=True, highlight=False)
lines: list[str] = []


def say(line: str = "") -> None:
    """Print a line and add it to the results."""
    console.print(line, markup=False)
    lines.append(line)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table and add it to the results."""
    for row in (head, ["---"] * len(head), *rows):
        say("| " + " | ".join(row) + " |")
    say()


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rounds(sides: Mapping[str, Callable[[], object]], n: int = ROUNDS) -> dict[str, list[float]]:
    """Time all sides in turn, `n` rounds after a warm-up round; return the times of each side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(n + 1):
        for name, work in sides.items():
            took = seconds(work)
            if index:
                times[name].append(took)
    return times
