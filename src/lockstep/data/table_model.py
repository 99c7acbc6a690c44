"""The columns of a table as features, and a run's network that takes a table's raw rows.

This file is stored, as text, with each logged model of a run on a table: it needs nothing of Lockstep.
Suffixes: N rows, F features, C classes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pandas import DataFrame, Series

Array = NDArray[Any]

BOOLS = {"1": "true", "0": "false", "1.0": "true", "0.0": "false"}
"""What a CSV file's column of bools may also have: pyarrow takes 1 and 0 for bools, pandas for numbers."""


@dataclass(frozen=True, eq=False)
class Values:
    """A column of a table as it was read.

    Attributes:
        values_N: numbers in float64, where NaN is missing; of categories, int32 indices of them, where -1 is
            missing.
        categories: sorted; None of numbers.
    """

    name: str
    values_N: Array
    categories: tuple[str, ...] | None

    @property
    def is_missing_N(self) -> Array:
        """Which values are missing."""
        return np.isnan(self.values_N) if self.categories is None else self.values_N < 0

    def at(self, rows: Array | slice) -> "Values":
        """Return these rows of it."""
        return Values(self.name, self.values_N[rows], self.categories)


@dataclass(frozen=True)
class Column:
    """What a column becomes, fitted on the training split.

    Attributes:
        categories: one feature each, which is 1 for this category; None of a column of numbers, which become
            (number - mean) / scale.
        fill: what a missing value counts as: the median, or the most frequent category; None if missing
            values are refused.
        n_missing: missing values of the whole table.
    """

    name: str
    categories: tuple[str, ...] | None
    mean: float = 0.0
    scale: float = 1.0
    fill: float | str | None = None
    n_missing: int = 0

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the column whose `asdict` was written as JSON."""
        categories = values["categories"]
        return cls(**{**values, "categories": None if categories is None else tuple(categories)})

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of its features: `island=Biscoe`, or the column's own."""
        if self.categories is None:
            return (self.name,)
        return tuple(f"{self.name}={category}" for category in self.categories)

    def write(self, column: Values, out_NxF: Array) -> None:
        """Write the features of a column's rows; of a category that wasn't fitted, all are 0.

        Args:
            out_NxF: F of this column, float32.
        """
        if self.categories is None:
            numbers_N = column.values_N
            if self.fill is not None:
                numbers_N = np.where(np.isnan(numbers_N), self.fill, numbers_N)
            with np.errstate(over="ignore"):  # to infinity, in float32
                out_NxF[:, 0] = (numbers_N - self.mean) / self.scale
            return
        assert column.categories is not None
        place = {category: place for place, category in enumerate(self.categories)}
        missing = place.get(str(self.fill), -1)
        places_N = np.array([*(place.get(category, -1) for category in column.categories), missing])[
            column.values_N  # of which -1 is the last
        ]
        out_NxF[:] = 0
        rows = np.flatnonzero(places_N >= 0)
        out_NxF[rows, places_N[rows]] = 1


@dataclass(frozen=True)
class TableModel:
    """A network with the columns that its features are made of.

    Attributes:
        network: N x F features to N x C logits.
        dtype: of its features.
        target: the column that it predicts.
    """

    network: Any
    dtype: str
    target: str
    class_names: tuple[str, ...]
    columns: tuple[Column, ...]

    def predict(self, model_input: "DataFrame", params: Mapping[str, Any] | None = None) -> "DataFrame":
        """Return the class of each row, and the probability of each class.

        Raises:
            ValueError: if a column can't be used: numbers that are none, or missing values where the network
                was trained without.
        """
        import pandas as pd
        import torch

        widths = [len(column.feature_names) for column in self.columns]
        x_NxF = np.empty((len(model_input), sum(widths)), np.float32)
        for column, width, stop in zip(self.columns, widths, np.cumsum(widths), strict=True):
            column.write(_read(column, model_input[column.name]), x_NxF[:, stop - width : stop])
        with torch.no_grad():
            logits_NxC = self.network(torch.from_numpy(x_NxF.astype(self.dtype)))
        p_NxC = logits_NxC.double().softmax(dim=1).numpy()
        found = {self.target: np.array(self.class_names, object)[p_NxC.argmax(1)]}
        found |= {f"probability of {name}": p_NxC[:, place] for place, name in enumerate(self.class_names)}
        return pd.DataFrame(found, index=model_input.index)


def _read(column: Column, series: "Series[Any]") -> Values:
    """Return a column of raw rows.

    Raises:
        ValueError: see TableModel.predict.
    """
    is_missing_N = (series.isna() | (series.astype(str) == "")).to_numpy()
    if is_missing_N.any() and column.fill is None:
        raise ValueError(
            f"column {column.name!r}: {is_missing_N.sum()} values are missing; none were in training"
        )
    known = series[~is_missing_N]
    if column.categories is None:
        numbers_N = np.full(len(series), np.nan)
        try:
            numbers_N[~is_missing_N] = known.astype(float)
        except (ValueError, TypeError) as error:
            raise ValueError(f"column {column.name!r} has numbers: {error}") from None
        if not (np.abs(numbers_N[~is_missing_N]) <= np.finfo(np.float32).max).all():
            raise ValueError(f"column {column.name!r}: infinite numbers")
        return Values(column.name, numbers_N, None)
    texts = known.astype(str)
    if {*column.categories} <= {"false", "true"}:  # bools, which pandas writes as True and False
        texts = texts.str.lower().replace(BOOLS)
    categories = tuple(sorted({*texts}))
    codes_N = np.full(len(series), -1, np.int32)
    codes_N[~is_missing_N] = np.searchsorted(np.array(categories, object), texts.to_numpy(object))
    return Values(column.name, codes_N, categories)


def _load_pyfunc(path: str) -> TableModel:
    """Load what `lockstep.tracking.saved_model` saved; MLflow calls this."""
    import torch

    described = json.loads((Path(path) / "columns.json").read_text(encoding="utf-8"))
    return TableModel(
        torch.export.load(Path(path) / "model.pt2").module(),
        described["dtype"],
        described["target"],
        tuple(described["class_names"]),
        tuple(map(Column.of_json, described["columns"])),
    )
