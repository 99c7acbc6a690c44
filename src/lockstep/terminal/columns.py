"""Tables that fit their width: names and words are folded or shortened, figures never.

Where there is no room for all columns, headings are broken at words first, then columns are left out, the
least important first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.table import Table

GAP = 2
"""Between two columns."""

LEAST_NAME, LEAST_WORDS = 20, 10
"""The least width of the names and of a column of words, unless all are shorter."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        importance: columns of the least importance are left out first; None is always shown.
        kind: figures and a word are never broken, words are; figures stand on the right.
    """

    heading: str
    cells: Sequence[str]
    importance: int | None = None
    kind: Literal["figures", "word", "words"] = "figures"

    def width(self, is_broken: bool) -> int:
        """Return the least width, with its heading broken at words or not."""
        heading = max(map(cell_len, self.heading.split() if is_broken else [self.heading]))
        longest = max([heading, *map(cell_len, self.cells)])
        return min(longest, LEAST_WORDS) if self.kind == "words" else longest


def fitted(
    names: Column,
    columns: Sequence[Column],
    width: int,
    overflow: Literal["fold", "ellipsis"] = "fold",
    styles: Sequence[str | None] = (),
    caption: str | None = None,
) -> Table:
    """Return a table whose first column has the names of its rows.

    Args:
        width: the most that there is room for, in characters.
        overflow: what happens to names that are too long.
        styles: of the rows, in order.
    """
    kept, longest = list(columns), max(map(cell_len, [names.heading, *names.cells]))
    least = min(longest, LEAST_NAME)
    is_broken = False
    while _room(kept, width, is_broken) < least:
        weakest = min(
            (column for column in kept if column.importance is not None),
            key=lambda column: column.importance or 0,
            default=None,
        )
        if is_broken and weakest is None:
            break
        if is_broken:
            kept = [column for column in kept if column is not weakest]
        is_broken = True
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", caption=caption)
    of_names = min(longest, max(least, _room(kept, width, is_broken)))
    table.add_column(names.heading, width=of_names, overflow=overflow, no_wrap=overflow == "ellipsis")
    for column in kept:
        heading = column.heading.replace(" ", "\n") if is_broken else column.heading
        table.add_column(
            heading,
            justify="right" if column.kind == "figures" else "left",
            no_wrap=column.kind != "words",
            overflow="fold",
            min_width=column.width(is_broken),
        )
    for place, name in enumerate(names.cells):
        style = styles[place] if styles else None
        table.add_row(name, *(column.cells[place] for column in kept), style=style)
    return table


def _room(columns: Sequence[Column], width: int, is_broken: bool) -> int:
    """Return what the columns leave of a width for names."""
    return width - sum(column.width(is_broken) + GAP for column in columns)
