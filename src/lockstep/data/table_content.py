"""A table as it was read: columns of one file, or of two, one below the other. Suffix: N rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lockstep.config.errors import Refused
from lockstep.data.labels import listed
from lockstep.data.table_files import NUMBERS, TableFile
from lockstep.data.table_model import Array, Values


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it was read: the rows of its file, then those of the file with the test set.

    Attributes:
        content: columns in NUMBERS or CATEGORIES, or null.
        n_first: rows of the first file.
    """

    content: pa.Table
    n_first: int

    def column(self, name: str) -> Values:
        """Return a column; its categories are those that it has."""
        column = self.content.column(name)
        if pa.types.is_null(column.type):
            return Values(name, np.full(len(column), np.nan), None)
        if column.type == NUMBERS:
            return Values(name, column.to_numpy(), None)
        whole = column.combine_chunks()
        codes_N = whole.indices.fill_null(-1).to_numpy().astype(np.int32)
        texts = whole.dictionary.to_pylist()
        used = sorted(texts[code] for code in np.unique(codes_N) if code >= 0 and texts[code] != "")
        place = {text: place for place, text in enumerate(used)}
        places = np.array([*(place.get(text, -1) for text in texts), -1], np.int32)
        return Values(name, places[codes_N], tuple(used))

    def raw(self, names: Sequence[str], rows: Array) -> tuple[tuple[float | str | None, ...], ...]:
        """Return rows of columns as they are in the file; None for what is missing."""
        values = self.content.select(list(names)).take(pa.array(rows)).to_pydict()
        return tuple(zip(*(values[name] for name in names), strict=True))


def read(first: TableFile, second: TableFile | None, names: list[str]) -> Table:
    """Return columns of both files, those of the second below those of the first.

    Raises:
        Refused: if a file can't be read, or the second lacks a column, or has text for numbers.
    """
    if second is None:
        content = first.read(names)
        return Table(content, len(content))
    if lacking := [name for name in names if name not in second.types]:
        raise Refused([f"{second.label}: lacks the columns {listed(tuple(lacking))} of {first.label}"])
    above, below = first.read(names), second.read(names)
    merged, problems = {}, []
    for name in names:
        parts = [above.column(name), below.column(name)]
        kinds = ["numbers" if part.type == NUMBERS else "text" for part in parts]
        if len({*kinds}) == 2 and not any(pa.types.is_null(part.type) for part in parts):
            problems.append(
                f"{second.label}: column {name!r} has {kinds[1]}, but {kinds[0]} in {first.label}"
            )
            continue
        merged[name] = pa.chunked_array([c for part in parts for c in _in_type_of(part, parts).chunks])
    if problems:
        raise Refused(problems)
    return Table(pa.table(merged).unify_dictionaries(), len(above))


def _in_type_of(column: pa.ChunkedArray, columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return a column; if it has no values, in the type of those that have."""
    known = [each.type for each in columns if not pa.types.is_null(each.type)]
    return column.cast(known[0]) if pa.types.is_null(column.type) and known else column
