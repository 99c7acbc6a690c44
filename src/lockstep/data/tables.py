"""The user's own table: its columns chosen and checked, its rows split, its features made.

Suffixes: N rows, F features.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from lockstep.config.data_config import TableConfig
from lockstep.config.errors import Refused, nearest
from lockstep.data import columns, splits
from lockstep.data.array_files import Prepared
from lockstep.data.description import EXAMPLES, DataDescription, TableDescription
from lockstep.data.folds import divided, too_rare
from lockstep.data.labels import listed, majority_of
from lockstep.data.memory import physical_bytes
from lockstep.data.table_checks import as_classes, check, is_number
from lockstep.data.table_content import Table, read
from lockstep.data.table_files import TableFile, opened, unusable
from lockstep.data.table_model import Array, Column, Values

FORMAT = 1
"""Of the features: raise it when those of an equal table change, as their digest must, too."""


@dataclass(frozen=True)
class Wanted:
    """What a config asks for, see TableConfig; a table's features depend on nothing else."""

    path: Path
    test_path: Path | None
    target: str
    features: tuple[str, ...] | None
    drop: tuple[str, ...]
    missing: str
    test_size: float | None
    split_seed: int
    val_size: int
    fold: int | None
    folds: int | None

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return [path for path in (self.path, self.test_path) if path is not None]

    @classmethod
    def of(cls, config: TableConfig) -> Self:
        """Return what a config asks for."""
        return cls(
            path=Path(config.path),
            test_path=None if config.test_path is None else Path(config.test_path),
            target=config.target,
            features=config.features,
            drop=config.drop,
            missing=config.missing,
            test_size=config.test_size,
            split_seed=config.split_seed,
            val_size=config.val_size,
            fold=config.fold,
            folds=config.folds,
        )


def prepare(wanted: Wanted) -> Prepared:
    """Return a table as a data set: numbers standardized, categories one-hot, the target as classes.

    Raises:
        Refused: if a file can't be read, or a column can't be used.
    """
    try:
        return _prepared(wanted)
    finally:
        # Else this process keeps the memory: 0.9 GiB after a table of 1,000,000 x 100.
        pa.default_memory_pool().release_unused()


def _prepared(wanted: Wanted) -> Prepared:
    first = opened("data.path", wanted.path)
    second = None if wanted.test_path is None else opened("data.test_path", wanted.test_path)
    chosen = _chosen(first, wanted)
    wrong = {name: why for name in chosen if (why := unusable(first.types[name]))}
    names = [name for name in chosen if name not in wrong]
    table = read(first, second, [*names, wanted.target])
    target = as_classes(table.column(wanted.target), table.n_first, f"data.target={wanted.target}")
    imputes = wanted.missing == "impute"
    checked = check(
        table.column, names, table.n_first, first.label, imputes, wanted.features, wanted.drop, wrong
    )
    used = [name for name in names if name not in checked.left_out]
    content = _content(table, target, used)
    train_N, test_N, pool_digest = _split(target, table.n_first, wanted, content)
    fitted_N = _without_validation(target, train_N, wanted)
    fitted = columns.fit((table.column(name).at(fitted_N) for name in used), imputes)
    fitted = [replace(column, n_missing=checked.n_missing[column.name]) for column in fitted]
    x_train, x_test = _features(table, fitted, (train_N, test_N), first.label)
    y_N = target.values_N.astype(np.int64)
    majority, accuracy = majority_of(y_N[train_N], y_N[test_N])
    blank_1xF = np.zeros((1, x_train.shape[1]), np.float32)
    description = DataDescription(
        name="table",
        digest=_digest(content, test_N, fitted_N),
        feature_shape=x_train.shape[1:],
        class_names=target.categories or (),
        n_train=len(train_N),
        n_test=len(test_N),
        source=str(wanted.path),
        scale="standardize",
        majority=majority,
        majority_accuracy=accuracy,
        fold=wanted.fold,
        pool_digest=pool_digest,
        table=TableDescription(
            wanted.target, tuple(fitted), tuple(checked.left_out.items()), table.raw(used, test_N[:EXAMPLES])
        ),
    )
    arrays = (x_train, y_N[train_N], x_test, y_N[test_N], blank_1xF)
    rare = [] if wanted.folds is None else too_rare(y_N, description.class_names, wanted.folds)
    return Prepared(description, arrays, [*_remarks(description), *rare])


def _chosen(file: TableFile, wanted: Wanted) -> list[str]:
    """Return the columns to predict from, in the file's order."""
    asked = {"target": [wanted.target], "features": wanted.features or (), "drop": wanted.drop}
    listing = listed(tuple(file.types))
    hint = "; is there no line of names above?" if all(map(is_number, file.types)) else ""
    problems = [
        f"data.{key}={name}: {file.label} has no such column; it has {listing}"
        f"{nearest(name, file.types) or hint}"
        for key, names in asked.items()
        for name in names
        if name not in file.types
    ]
    out = {wanted.target, *wanted.drop}
    chosen = [name for name in file.types if name not in out and name in (wanted.features or file.types)]
    if why := unusable(file.types.get(wanted.target, pa.null())):
        problems.append(f"data.target={wanted.target}: {why}; allowed: numbers, text, bools")
    if problems:
        raise Refused(problems)
    return chosen


def _split(target: Values, n_first: int, wanted: Wanted, content: str) -> tuple[Array, Array, str]:
    """Return the rows of the training set, those of the test set, and the digest of all folds, if there are.

    Args:
        n_first: rows of the first file.
        content: the table's digest.
    """
    n = len(target.values_N)
    if wanted.folds is not None:
        fold_N = divided(target.values_N, wanted.folds, wanted.split_seed)
        is_test_N = fold_N == wanted.fold
        return np.flatnonzero(~is_test_N), np.flatnonzero(is_test_N), _digest(content, fold_N)
    if wanted.test_size is None:
        return np.arange(n_first), np.arange(n_first, n), ""
    n_test, most = splits.n_test(n, wanted.test_size), n - len(target.categories or ())
    if n_test > most:
        raise Refused(
            [
                f"data.test_size={wanted.test_size}: {n_test:,} of {n:,} rows; allowed: {most:,}, so that the"
                " training set has a row of each class"
            ]
        )
    return *splits.stratified(target.values_N, n_test, wanted.split_seed), ""


def _without_validation(target: Values, train_N: Array, wanted: Wanted) -> Array:
    """Return the training rows that are not set aside for validation, see Dataset.split."""
    labels_N = target.values_N[train_N]
    if wanted.val_size > len(labels_N) - len(np.unique(labels_N)):
        return train_N  # check_stream refuses it later
    return train_N[splits.stratified(labels_N, wanted.val_size, wanted.split_seed)[0]]


def _features(table: Table, fitted: Sequence[Column], parts: Sequence[Array], label: str) -> list[Array]:
    """Return the features of some rows, and of others: N x F, float32."""
    widths = [len(column.feature_names) for column in fitted]
    needed, memory = sum(widths) * sum(map(len, parts)) * 4, physical_bytes()
    if needed > memory // 2:
        raise Refused(
            [
                f"{label}: {sum(widths):,} features need {needed / 2**30:.1f} GiB, more than half of this"
                f" machine's memory ({memory / 2**30:.1f} GiB)"
            ]
        )
    found = [np.empty((len(rows), sum(widths)), np.float32) for rows in parts]
    stops = np.cumsum(widths)
    problems = []
    for column, width, stop in zip(fitted, widths, stops, strict=True):
        values = table.column(column.name)
        for rows, x_NxF in zip(parts, found, strict=True):
            column.write(values.at(rows), x_NxF[:, stop - width : stop])
            if not np.isfinite(x_NxF[:, stop - width : stop]).all():
                problems.append(f"{label}: column {column.name!r} has numbers far beyond those trained on")
    if problems:
        raise Refused(problems)
    return found


def _content(table: Table, target: Values, names: Sequence[str]) -> str:
    """Return the digest of a table's content: of what is used, whatever the files' format."""
    sha256 = hashlib.sha256(f"table {FORMAT} {table.n_first} ".encode())
    for column in (target, *(table.column(name) for name in names)):
        sha256.update(repr((column.name, column.categories)).encode())
        values_N = column.values_N
        if column.categories is None:
            values_N = np.where(np.isnan(values_N), np.nan, values_N)  # one NaN of many
        sha256.update(np.ascontiguousarray(values_N).data)
    return sha256.hexdigest()


def _digest(content: str, *parts: Array) -> str:
    """Return the digest of a table as it is split: the rows of its test set, and those that features are
    fitted on."""
    sha256 = hashlib.sha256(content.encode())
    for rows in parts:
        sha256.update(f" {len(rows)} ".encode() + rows.astype("<i8").tobytes())
    return sha256.hexdigest()[:32]


def _remarks(data: DataDescription) -> list[tuple[int, str]]:
    assert data.table is not None
    n_numbers = sum(column.categories is None for column in data.table.columns)
    n_others = len(data.table.columns) - n_numbers
    kinds = [f"{n:,} {what}" for n, what in ((n_numbers, "of numbers"), (n_others, "of categories")) if n]
    rows = f"{data.n_train:,} rows to train on, {data.n_test:,} to test"
    if data.fold is not None:  # of which each has about as many
        rows = f"{data.n_train + data.n_test:,} rows"
    summary = (
        f"columns: {' and '.join(kinds)}, {data.n_features:,} features; {rows};"
        f" classes: {listed(data.class_names)}"
    )
    left_out = [
        (logging.WARNING, f"column {name!r} {why}: it is left out") for name, why in data.table.left_out
    ]
    return [*left_out, (logging.INFO, summary)]
