"""What each column of a table becomes: numbers are standardized, categories one-hot.

It is fitted by scikit-learn's ColumnTransformer, and kept as plain numbers and text, which need neither
scikit-learn nor pickle to be applied. Suffixes: N rows, K columns.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from lockstep.data.table_model import Column, Values

BLOCK_BYTES = 2**26
"""About how many bytes of columns are fitted at a time: scikit-learn makes several copies of them."""


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
