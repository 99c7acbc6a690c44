"""What each column of a table becomes: numbers are standardized, categories one-hot.

It is fitted by scikit-learn's ColumnTransformer, and kept as plain numbers and text, which need neither
scikit-learn nor pickle to be applied. Suffixes: N rows, K columns, F features.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK_BYTES = 2**26
"""About how many bytes of columns are fitted at a time: scikit-learn makes several copies of them."""


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


def fit(columns: Iterable[Values], imputes: bool) -> list[Column]:
    """Return what columns become.

    Args:
        columns: of the rows to fit on.
        imputes: whether missing values are filled in; without, there must be none.
    """
    found: list[Column] = []
    stream = iter(columns)
    for first in stream:
        n = max(1, BLOCK_BYTES // (8 * max(1, len(first.values_N))))
        found += _fit_block([first, *islice(stream, n - 1)], imputes)
    return found


def _fit_block(columns: Sequence[Values], imputes: bool) -> list[Column]:
    from sklearn.compose import ColumnTransformer  # here, because loading these takes 1 s
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x_NxK = np.column_stack([np.where(c.is_missing_N, np.nan, c.values_N) for c in columns])
    kinds = {
        "numbers": (StandardScaler(), "median", [k for k, c in enumerate(columns) if c.categories is None]),
        "categories": (
            OneHotEncoder(handle_unknown="ignore"),
            "most_frequent",
            [k for k, c in enumerate(columns) if c.categories is not None],
        ),
    }
    steps = [
        (
            name,
            make_pipeline(*[SimpleImputer(strategy=by, keep_empty_features=True)][:imputes], last),
            places_K,
        )
        for name, (last, by, places_K) in kinds.items()
        if places_K
    ]
    transformer = ColumnTransformer(steps, sparse_threshold=1.0).fit(x_NxK)
    fitted: dict[int, Column] = {}
    for _, pipeline, places_K in transformer.transformers_:
        fills_K = np.nan_to_num(pipeline[0].statistics_) if imputes else [None] * len(places_K)
        for place, (k, fill) in enumerate(zip(places_K, fills_K, strict=True)):
            fitted[k] = _column(columns[k], pipeline[-1], place, fill)
    return [fitted[k] for k in range(len(columns))]


def _column(column: Values, fitted: Any, place: int, fill: float | None) -> Column:
    """Return what a column becomes, by the scaler or encoder that has it in this place."""
    if column.categories is None:
        number = None if fill is None else float(fill)
        return Column(column.name, None, float(fitted.mean_[place]), float(fitted.scale_[place]), number)
    names = tuple(column.categories[int(code)] for code in fitted.categories_[place])
    return Column(column.name, names, fill=None if fill is None else column.categories[int(fill)])
