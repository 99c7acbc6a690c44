"""What a network can't be trained on in a table's columns, and what would mean nothing."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lockstep.config.errors import Refused
from lockstep.config.parsing import as_text, for_shell
from lockstep.data.labels import NAMES_SHOWN, listed
from lockstep.data.table_model import Values

MOST_CATEGORIES = 1000
"""The most features that one column may become."""

MOST_CLASSES = 1000
"""The most classes of a target: with more, whole numbers are those of a regression."""

FEW_ROWS = 20
"""Up to so many rows, a column or target whose values all differ says nothing about what it is."""

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_THOUSANDS = re.compile(r"\s*[+-]?\d{1,3}(,\d{3})+\s*")
_WITH_COMMA = re.compile(rf"\s*[+-]?\d+,\d+\s*|{_THOUSANDS.pattern}")
_INDEX = re.compile(r"|__index_level_\d+__|Unnamed: \d+")
"""Names of an index that pandas saved, in CSV and in parquet files, and of the former as it reads it."""

REGRESSION = "predicting a number is regression, which is out of scope"


@dataclass(frozen=True)
class Checked:
    """Columns that can be used.

    Attributes:
        left_out: those that say nothing, and why.
        n_missing: missing values of each.
    """

    left_out: Mapping[str, str]
    n_missing: Mapping[str, int]


def as_classes(target: Values, n_first: int, key: str) -> Values:
    """Return a target with its classes as categories: numbers must be whole.

    Args:
        n_first: rows of the first file, which must have all classes.
        key: the setting, as typed.

    Raises:
        Refused: listing every problem.
    """
    problems = []
    if n_missing := int(target.is_missing_N.sum()):
        problems.append(f"{key}: {n_missing:,} of {len(target.values_N):,} rows have none; remove these rows")
    has_numbers = target.categories is None
    if target.categories is None:
        numbers_N = target.values_N[~target.is_missing_N]
        wrong_N = numbers_N[(numbers_N != np.floor(numbers_N)) | (np.abs(numbers_N) >= 2**53)]
        if len(wrong_N):
            raise Refused([*problems, f"{key}: has the number {wrong_N[0]:g}; {REGRESSION}"])
        classes, places_N = np.unique(numbers_N, return_inverse=True)
        codes_N = np.full(len(target.values_N), -1, np.int32)
        codes_N[~target.is_missing_N] = places_N
        target = Values(target.name, codes_N, tuple(str(int(number)) for number in classes))
    assert target.categories is not None
    known = set(np.unique(target.values_N[:n_first]).tolist()) - {-1}
    names = [target.categories[code] for code in known]
    if len(known) == 1 and not problems:
        problems.append(f"{key}: has the single class {names[0]!r}; allowed: two classes or more")
    hint = f"; {REGRESSION}" if has_numbers else ""
    if len(known) > max(FEW_ROWS, n_first // 2):
        problems.append(
            f"{key}: has {len(known):,} different values in {n_first:,} rows;"
            f" allowed: classes of several rows each{hint}"
        )
    elif len(known) > MOST_CLASSES:
        problems.append(
            f"{key}: has {len(known):,} different values; allowed: {MOST_CLASSES:,} classes{hint}"
        )
    if unknown := [name for code, name in enumerate(target.categories) if code not in known]:
        problems.append(f"data.test_path: has classes that data.path lacks: {listed(tuple(unknown))}")
    if problems:
        raise Refused(problems)
    return target


def check(
    column: Callable[[str], Values],
    names: Sequence[str],
    n_first: int,
    label: str,
    imputes: bool,
    chosen: Sequence[str] | None,
    drop: Sequence[str],
    unusable: Mapping[str, str],
) -> Checked:
    """Check the columns to predict from.

    Args:
        column: returns one, of the rows of both files.
        n_first: rows of the first file, which decide which columns are left out.
        label: the first file, as typed.
        imputes: whether missing values are filled in.
        chosen: data.features; None where it names no columns.
        drop: data.drop.
        unusable: columns that were not read, as their type has no use, and why.

    Raises:
        Refused: listing every problem.
    """
    left_out, n_missing = {}, {}
    problems = {name: f"{why}; allowed: numbers, text, bools" for name, why in unusable.items()}
    for name in names:
        values = column(name)
        n_missing[name] = int(values.is_missing_N.sum())
        first_N = values.at(slice(n_first))
        if reason := _says_nothing(first_N):
            left_out[name] = reason
        elif problem := (
            _is_unnamed(name, chosen)
            or _misread(values)  # first, as numbers that were read as text differ in most rows
            or (chosen is None and _is_id(first_N))
            or _problem(values)
        ):
            problems[name] = problem
    said = [f"{label}: column {name!r} {problem}" for name, problem in [*problems.items()][:NAMES_SHOWN]]
    if len(problems) > NAMES_SHOWN:
        said.append(f"{label}: {len(problems) - NAMES_SHOWN:,} more such columns")
    if problems and chosen is None:
        said.append(f"to leave out columns: {for_shell([f'data.drop={as_text([*drop, *problems])}'])}")
    if not imputes:
        incomplete = {name: n for name, n in n_missing.items() if n and name not in {**left_out, **problems}}
        said += [f"{label}: {_missing(incomplete)}; data.missing=impute fills them in"] if incomplete else []
    if len(left_out) == len(names) and not problems:
        reasons = "".join(f"; {name!r} {why}" for name, why in [*left_out.items()][:NAMES_SHOWN])
        said.append(f"{label}: no column is left to predict from{reasons}")
    if said:
        raise Refused(said)
    return Checked(left_out, n_missing)


def is_number(text: str) -> bool:
    """Tell whether a text reads as a number."""
    return _NUMBER.fullmatch(text) is not None


def _missing(counts: Mapping[str, int]) -> str:
    shown = [f"{name} ({n:,})" for name, n in counts.items()]
    return f"values are missing in {listed(tuple(shown))}"


def _says_nothing(column: Values) -> str:
    """Return why a column is left out; empty if it isn't."""
    known_N = column.values_N[~column.is_missing_N]
    if not len(known_N):
        return "has no values"
    return "is constant" if (known_N == known_N[0]).all() else ""


def _problem(column: Values) -> str:
    """Return why a column can't be used; empty if it can."""
    known_N = column.values_N[~column.is_missing_N]
    if column.categories is None:
        n_large = int((np.abs(known_N) > np.finfo(np.float32).max).sum())
        return f"has {n_large:,} numbers that are infinite or too large for float32" if n_large else ""
    if len(column.categories) > MOST_CATEGORIES:
        n = len(column.categories)
        return f"has {n:,} different texts; allowed: {MOST_CATEGORIES:,}, as each becomes a feature"
    return ""


def _misread(column: Values) -> str:
    """Return why numbers were read as text; empty if they weren't."""
    if column.categories is None:
        return ""
    known_N = column.values_N[~column.is_missing_N]
    n_of_C = np.bincount(known_N, minlength=len(column.categories))
    n_numbers = sum(int(n) for n, text in zip(n_of_C, column.categories, strict=True) if is_number(text))
    with_comma = {
        text: int(n) for n, text in zip(n_of_C, column.categories, strict=True) if _WITH_COMMA.fullmatch(text)
    }
    is_mixed = len(known_N) / 2 <= n_numbers < len(known_N)
    if 2 * sum(with_comma.values()) >= len(known_N) or (is_mixed and with_comma):
        return _commas([*with_comma])
    if is_mixed:
        others, n_others = (
            [text for text in column.categories if not is_number(text)],
            len(known_N) - n_numbers,
        )
        return (
            f"has {n_numbers:,} numbers and {n_others:,} text{'s' * (n_others != 1)}:"
            f" {listed(tuple(others))}; leave the texts' fields empty if these are missing values"
        )
    return ""


def _commas(texts: Sequence[str]) -> str:
    """Return what to do about numbers with commas."""
    if decimal := [text for text in texts if not _THOUSANDS.fullmatch(text)]:
        return f"has decimal commas, as in {decimal[0]!r}; write decimal points"
    if large := [text for text in texts if text.count(",") > 1]:
        return f"has thousands separators, as in {large[0]!r}; leave the commas out"
    whole, point = (texts[0].strip().replace(",", mark) for mark in ("", "."))
    return (
        f"has thousands separators or decimal commas, as in {texts[0]!r};"
        f" write {whole} for the former, {point} for the latter"
    )


def _is_unnamed(name: str, chosen: Sequence[str] | None) -> str:
    """Return why a column of this name can't be used; empty if it can."""
    if chosen is not None:
        return "" if name else "has no name, which MLflow needs to log a model; name it in the file"
    return "has no name of its own, as an index that pandas saved" if _INDEX.fullmatch(name) else ""


def _is_id(column: Values) -> str:
    """Return why a column only names its rows; empty if it doesn't."""
    known_N = column.values_N[~column.is_missing_N]
    n = len(known_N)
    if n <= FEW_ROWS:
        return ""
    if column.categories is None:
        is_whole = (known_N == np.floor(known_N)).all()
        if is_whole and known_N.max() - known_N.min() == n - 1 and len(np.unique(known_N)) == n:
            return "numbers the rows"
        return ""
    n_different = len(np.unique(known_N))
    if n_different > n // 2:
        return f"has {n_different:,} different texts in {n:,} rows, as ids and free text have"
    return ""
