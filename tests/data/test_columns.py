"""What columns become: the numbers of scikit-learn's ColumnTransformer, bit for bit."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lockstep.data import columns
from lockstep.data.columns import fit
from lockstep.data.table_model import Column, Values

TEXTS = ("blue", "green", "Ärger", "red, dark", "x=1")


def values_of(name, series):
    """A column as it is read."""
    if series.dtype == float:
        return Values(name, series.to_numpy(), None)
    texts = tuple(sorted(series.dropna().unique()))
    codes = [texts.index(text) if isinstance(text, str) else -1 for text in series]
    return Values(name, np.array(codes, np.int32), texts)


def theirs(frame, train, imputes):
    """The features that scikit-learn makes of the user's own columns, of text, too."""
    numbers = [name for name in frame if frame[name].dtype == float]
    others = [name for name in frame if name not in numbers]
    fill = [SimpleImputer(strategy=by) for by in ("median", "most_frequent")] if imputes else [None, None]
    transformer = ColumnTransformer(
        [
            ("numbers", make_pipeline(fill[0], StandardScaler()), numbers),
            ("others", make_pipeline(fill[1], OneHotEncoder(handle_unknown="ignore")), others),
        ],
        sparse_threshold=0,
    )
    return transformer.fit(frame.iloc[train]).transform(frame).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60), st.booleans(), st.booleans())
def test_features_are_those_of_scikit_learn(monkeypatch_block, seed, n, has_gaps, is_in_blocks):
    random = np.random.RandomState(seed)
    frame = pd.DataFrame(
        {
            "a": random.normal(1e6, 1, n),
            "b": random.randint(0, 3, n).astype(float),
            "c": np.full(n, 0.1),
            "d": pd.Series(random.choice(TEXTS, n), dtype=object),
            "e": pd.Series(random.choice(TEXTS[:2], n), dtype=object),
        }
    )
    if has_gaps:
        for name, value in (("a", np.nan), ("b", np.nan), ("d", None)):
            frame.loc[random.rand(n) < 0.3, name] = value
        frame.loc[0, ["a", "b", "d"]] = [1.5, 2.0, "green"]  # a training row that has all
    train = np.arange(max(2, n // 2))
    monkeypatch_block(1 if is_in_blocks else 2**26)
    read = [values_of(name, frame[name]) for name in frame]
    fitted = fit((column.at(train) for column in read), has_gaps)
    assert [column.name for column in fitted] == list(frame)
    out = np.empty((n, sum(len(column.feature_names) for column in fitted)), np.float32)
    stop = 0
    for column, values in zip(fitted, read, strict=True):
        start, stop = stop, stop + len(column.feature_names)
        column.write(values, out[:, start:stop])
    expected = theirs(frame.replace({None: np.nan}) if has_gaps else frame, train, has_gaps)
    assert out.tobytes() == expected.tobytes()


@pytest.fixture(scope="module")
def monkeypatch_block():
    before = columns.BLOCK_BYTES
    yield lambda size: setattr(columns, "BLOCK_BYTES", size)
    columns.BLOCK_BYTES = before


def test_a_column_is_read_back_from_json():
    for column in (
        Column("a", None, 1.5, 0.1, 2.0, 3),
        Column("b", None, 1 / 3, 2.0),
        Column("d", TEXTS, fill="red, dark"),
    ):
        assert Column.of_json(json.loads(json.dumps(asdict(column)))) == column
    assert Column("d", TEXTS).feature_names == ("d=blue", "d=green", "d=Ärger", "d=red, dark", "d=x=1")
    assert Column("a", None).feature_names == ("a",)


def test_a_category_that_was_not_fitted_has_no_feature():
    column = Column("d", ("blue", "red"), fill="red")
    out = np.full((4, 2), 9, np.float32)
    column.write(Values("d", np.array([0, 1, 2, -1], np.int32), ("blue", "pink", "red")), out)
    assert out.tolist() == [[1, 0], [0, 0], [0, 1], [0, 1]]


def test_a_column_without_values_to_fit_on():
    read = [Values("a", np.full(3, np.nan), None), Values("d", np.full(3, -1, np.int32), ("blue", "red"))]
    number, category = fit(read, True)
    assert (number.mean, number.scale, number.fill) == (0, 1, 0)
    assert (category.categories, category.fill) == (("blue",), "blue")
