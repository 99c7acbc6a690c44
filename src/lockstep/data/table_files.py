"""A table's file, CSV or parquet: numbers are read as float64, text and bools as categories.

Text that stands for a missing value is pyarrow's (NA, NaN, null, …), and empty text.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from lockstep.config.errors import Refused
from lockstep.data.memory import physical_bytes

BLOCK_BYTES = 2**24
"""How much of a CSV file decides the types of its columns."""

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
"""Endings of compressed CSV files, and pyarrow's names of the compressions."""

ALLOWED = f"allowed: .csv, .tsv (also compressed: {', '.join(COMPRESSIONS)}), .parquet"

NUMBERS, CATEGORIES = pa.float64(), pa.dictionary(pa.int32(), pa.string())
"""The types of columns as they are read."""

MISSING = (*csv.ConvertOptions().null_values, "<NA>", "None")
"""Text of a CSV file that stands for a missing value."""


@dataclass(frozen=True)
class TableFile:
    """A file and what it says of its columns.

    Attributes:
        label: the setting that names it, as typed.
        types: of the columns, by name, in the file's order.
        delimiter: of a CSV file; None of a parquet file.
    """

    label: str
    path: Path
    types: Mapping[str, pa.DataType]
    delimiter: str | None

    def read(self, names: list[str]) -> pa.Table:
        """Return columns, in NUMBERS or CATEGORIES, those without any value in null.

        Raises:
            Refused: if the file can't be read, or its content does not fit into this machine's memory.
        """
        batches, total, memory = [], 0, physical_bytes()
        with _refusing(self.label, list(self.types)):
            for batch in self._batches(names):
                columns = [_canonical(batch.column(name)) for name in names]
                batches.append(pa.record_batch(columns, names))
                total += batches[-1].nbytes
                if total > memory // 2:
                    raise Refused(
                        [
                            f"{self.label}: needs more than half of this machine's memory"
                            f" ({memory / 2**30:.1f} GiB); leave out columns (data.drop) or rows"
                        ]
                    )
        if not total:
            raise Refused([f"{self.label}: has no rows"])
        table = pa.Table.from_batches(batches).unify_dictionaries()
        for place, name in enumerate(names):
            if pa.types.is_null(self.types[name]):  # so far as its type was read
                table = table.set_column(place, name, _settled(table.column(name)))
        return table

    def _batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        if self.delimiter is None:
            with parquet.ParquetFile(self.path) as file:
                yield from file.iter_batches(columns=names)
            return
        options = csv.ConvertOptions(
            include_columns=names,
            column_types={name: _read_as(self.types[name]) for name in names},
            null_values=MISSING,
            strings_can_be_null=True,
        )
        with _open_csv(self.path, self.delimiter, options) as reader:
            yield from reader


def opened(key: str, path: Path) -> TableFile:
    """Return a file whose columns' names and types are known.

    Args:
        key: the setting that names it.

    Raises:
        Refused: if it can't be read, or has columns of equal names.
    """
    label = f"{key}={path}"
    if path.exists() and not path.is_file():  # to open a pipe would wait for a writer
        raise Refused([f"{label}: is {'a folder' if path.is_dir() else 'not a regular file'}; {ALLOWED}"])
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind not in (".csv", ".tsv", ".parquet"):
        raise Refused([f"{label}: not a table by its name; {ALLOWED}"])
    delimiter = None
    with _refusing(label):
        if kind == ".parquet":
            schema = parquet.read_schema(path)
        else:
            line = _first_line(label, path)
            delimiter = "\t" if kind == ".tsv" else _delimiter(line)
            options = csv.ConvertOptions(null_values=MISSING, strings_can_be_null=True)
            with _open_csv(path, delimiter, options) as reader:
                schema = reader.schema
        names = schema.names
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise Refused([f"{label}: has several columns named {', '.join(map(repr, twice[:5]))}; rename them"])
    if delimiter is not None and any(map(pa.types.is_binary, schema.types)):
        raise Refused([f"{label}: {_not_utf8()}"])
    return TableFile(label, path, dict(zip(names, schema.types, strict=True)), delimiter)


def unusable(dtype: pa.DataType) -> str:
    """Return what is wrong with a column of this type; empty if it has numbers, text or bools, or nothing."""
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    if pa.types.is_null(dtype) or pa.types.is_boolean(dtype) or _is_numeric(dtype) or _is_text(dtype):
        return ""
    return "has dates or times" if pa.types.is_temporal(dtype) else f"has the type {dtype}"


def _is_numeric(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype))


def _is_text(dtype: pa.DataType) -> bool:
    return any(
        is_such(dtype) for is_such in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _read_as(dtype: pa.DataType) -> pa.DataType:
    """Return the type in which to read a CSV file's column, whose first block is of this type."""
    if _is_numeric(dtype):
        return NUMBERS
    return dtype if pa.types.is_boolean(dtype) else CATEGORIES


def _canonical(column: pa.Array) -> pa.Array:
    """Return a column in NUMBERS or CATEGORIES; empty text and NaN are missing."""
    if pa.types.is_dictionary(column.type) and not column.type.equals(CATEGORIES):
        column = column.dictionary_decode()
    if _is_numeric(column.type):
        return column.cast(NUMBERS, safe=False)
    return column.cast(pa.string()).dictionary_encode() if column.type != CATEGORIES else column


def _settled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column whose first block has no values: as numbers if all are; as null if it has none."""
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column))])
    with suppress(pa.ArrowInvalid):
        return column.cast(pa.string()).cast(NUMBERS)
    return column


def _first_line(label: str, path: Path) -> bytes:
    """Return the first line of a CSV file.

    Raises:
        Refused: if it isn't UTF-8, so far as can be told here.
    """
    with _stream(path) as stream:
        line = stream.read(2**16).partition(b"\n")[0]
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Refused([f"{label}: {_not_utf8('utf-16')}"])
    if b"\0" in line:
        raise Refused([f"{label}: has NUL bytes, which binary files have, and UTF-16; allowed: UTF-8"])
    return bytes(line)


def _delimiter(line: bytes) -> str:
    """Return what separates the names in a file's first line: a comma, or else a tab or a semicolon."""
    return next((mark for mark in ",\t;" if mark.encode() in line), ",")


def _stream(path: Path) -> pa.NativeFile:
    return pa.input_stream(str(path), compression=COMPRESSIONS.get(path.suffix.lower()))


def _open_csv(path: Path, delimiter: str, options: csv.ConvertOptions) -> csv.CSVStreamingReader:
    return csv.open_csv(
        _stream(path),
        # Without threads, an error says in which row it is.
        read_options=csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=options,
    )


@contextmanager
def _refusing(label: str, names: Sequence[str] = ()) -> Iterator[None]:
    """Refuse a file that pyarrow can't read; `names` are its columns."""
    try:
        yield
    except FileNotFoundError:
        raise Refused([f"{label}: there is no such file; {ALLOWED}"]) from None
    except UnicodeDecodeError:
        raise Refused([f"{label}: {_not_utf8()}"]) from None
    except (pa.ArrowException, OSError) as error:
        raise Refused([f"{label}: {_reason(error, names)}"]) from None


def _not_utf8(encoding: str = "latin1") -> str:
    return f"is not UTF-8; convert it first: iconv -f {encoding} -t utf-8 <file> > <new file>"


def _reason(error: Any, names: Sequence[str]) -> str:
    """Return what pyarrow says, in one line."""
    text = " ".join(str(error).split())
    if "UTF8" in text:
        return _not_utf8()
    if ragged := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text):
        row, expected, got = ragged.groups()
        return f"row {row} has {got} values; the header, which is row 1, has {expected} names"
    if mixed := re.search(r"In CSV column #(\d+): .*invalid value '(.*)'", text):
        return (
            f"column {names[int(mixed[1])]!r} begins with numbers, or bools, but has the value {mixed[2]!r}"
        )
    if "Empty CSV file" in text:
        return "has no rows"
    return f"can't be read: {text if len(text) <= 160 else text[:157] + '...'}"
