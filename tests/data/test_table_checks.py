"""Hostile tables: one clear line for each thing that is wrong."""

import time

import numpy as np
import pandas as pd
import pytest
from helpers.tables import birds, made, refused

from lockstep.config.errors import Refused
from lockstep.data.table_checks import as_classes
from lockstep.data.table_model import Values

N = 60


def table(n=N, **columns):
    """A table of n rows that can be used, with more columns."""
    i = np.arange(n)
    usable = {"x": i % 7 * 1.5, "c": [*map("uvw".__getitem__, i % 3)]}
    return pd.DataFrame({**usable, **columns, "y": ["a", "b"] * (n // 2)})


def drop(*names):
    return f"to leave out columns: 'data.drop=[{','.join(names)}]'"


NAMES = [f"n{i:04}" for i in range(1001)]
NUMBERS = [str(i % 5) for i in range(N - 2)]

INDEX = ("", "__index_level_0__", "Unnamed: 0")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": range(N)}, ["column 'id' numbers the rows", drop("id")]),
        (
            {name: np.arange(N) ** 2 for name in INDEX},
            [
                *(f"column '{name}' has no name of its own, as an index that pandas saved" for name in INDEX),
                drop('""', "__index_level_0__", "Unnamed: 0"),
            ],
        ),
        (
            {"name": [f"n{i}" for i in range(N)], "a=b, c": [f"t{i // 1.5:.0f}" for i in range(N)]},
            [
                "column 'name' has 60 different texts in 60 rows, as ids and free text have",
                "column 'a=b, c' has 40 different texts in 60 rows, as ids and free text have",
                drop("name", '"a=b, c"'),
            ],
        ),
        (
            {"id": range(N), "day": pd.date_range("2020-01-01", periods=N).date, "at": ["10:30:00"] * N},
            [
                "column 'day' has dates or times; allowed: numbers, text, bools",
                "column 'at' has dates or times; allowed: numbers, text, bools",
                "column 'id' numbers the rows",
                drop("day", "at", "id"),
            ],
        ),
        (
            {"age": [*NUMBERS, "?", "old"], "mass": [*(f"{i}.5" for i in range(N - 1)), "?"]},
            [
                "column 'age' has 58 numbers and 2 texts: ?, old; leave the texts' fields empty if these are"
                " missing values",
                "column 'mass' has 59 numbers and 1 text: ?; leave the texts' fields empty if these are"
                " missing values",
                drop("age", "mass"),
            ],
        ),
        (
            {"m": [*(f"{i % 5},5" for i in range(N - 1)), "3"]},
            ["column 'm' has decimal commas, as in '0,5'; write decimal points", drop("m")],
        ),
        (
            {
                "price": [f"{1 + i % 5},{i % 2}00" for i in range(N)],
                "few": [*map(str, range(100, 159)), "-1,000"],
                "area": ["1,000,000", "999,000"] * 30,
                "point": ["1,000", "2,50"] * 30,
            },
            [
                "column 'price' has thousands separators or decimal commas, as in '1,000'; write 1000 for the"
                " former, 1.000 for the latter",
                "column 'few' has thousands separators or decimal commas, as in '-1,000'; write -1000 for the"
                " former, -1.000 for the latter",
                "column 'area' has thousands separators, as in '1,000,000'; leave the commas out",
                "column 'point' has decimal commas, as in '2,50'; write decimal points",
                drop("price", "few", "area", "point"),
            ],
        ),
        (
            {"big": [1e300, np.inf, -np.inf, *range(N - 3)]},
            ["column 'big' has 3 numbers that are infinite or too large for float32", drop("big")],
        ),
        (
            {"z": [np.nan, 1.5, *range(N - 2)], "t": [*"uv" * 25, *[None] * (N - 50)]},
            ["values are missing in z (1), t (10); data.missing=impute fills them in"],
        ),
    ],
)
def test_columns_that_cannot_be_used(tmp_path, columns, said):
    assert refused(tmp_path / "t.csv", table(**columns), target="y") == said


def test_columns_that_are_named_may_look_like_ids(tmp_path):
    ids = table(id=range(N), name=[f"n{i}" for i in range(N)])
    found = made(tmp_path / "t.csv", ids, target="y", features=("id", "name"))
    assert found.description.n_features == 1 + 48  # the names of the rows that are trained on


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_index_that_pandas_saved_can_be_dropped(tmp_path, kind):
    some = table().sample(frac=0.7, random_state=1)
    name, path = {"csv": "", "parquet": "__index_level_0__"}[kind], tmp_path / f"t.{kind}"
    some.to_csv(path) if kind == "csv" else some.to_parquet(path)
    [said, _] = refused(path, target="y")
    assert said == f"column {name!r} has no name of its own, as an index that pandas saved"
    dropped = made(path, target="y", drop=(name,)).description
    plain = made(tmp_path / "u.parquet", some.reset_index(drop=True), target="y").description
    assert (dropped.digest, dropped.table) == (plain.digest, plain.table)


def test_an_index_that_is_named_is_a_feature_unless_it_has_no_name(tmp_path):
    saved = table(**{name: np.arange(N) ** 2 for name in INDEX})
    found = made(tmp_path / "t.csv", saved, target="y", features=INDEX[1:])
    assert [column.name for column in found.description.table.columns] == [*INDEX[1:]]
    assert refused(tmp_path / "t.csv", target="y", features=("x", "")) == [
        "column '' has no name, which MLflow needs to log a model; name it in the file"
    ]


def test_many_categories(tmp_path):
    n = 10_000
    path = tmp_path / "t.csv"
    said = "column 'k' has 2,500 different texts; allowed: 1,000, as each becomes a feature"
    assert refused(path, table(n, k=[f"k{i % 2500}" for i in range(n)]), target="y")[0] == said
    said = "column 'k' has 10,000 different texts in 10,000 rows, as ids and free text have"
    assert refused(path, table(n, k=[f"k{i}" for i in range(n)]), target="y")[0] == said
    many = {f"k{k}": range(N) for k in range(12)}
    assert refused(path, table(**many), target="y")[-2:] == ["2 more such columns", drop(*many)]


def test_columns_that_say_nothing_are_left_out(tmp_path):
    found = made(tmp_path / "t.csv", table(k=7, s="same", none=None), target="y")
    assert found.description.table.left_out == (
        ("k", "is constant"),
        ("s", "is constant"),
        ("none", "has no values"),
    )
    assert [column.name for column in found.description.table.columns] == ["x", "c"]
    assert [text for _, text in found.remarks] == [
        "column 'k' is constant: it is left out",
        "column 's' is constant: it is left out",
        "column 'none' has no values: it is left out",
        "columns: 1 of numbers and 1 of categories, 4 features; 48 rows to train on, 12 to test; classes:"
        " a, b",
    ]
    assert refused(tmp_path / "t.csv", table(k=7), target="y", features=("k",)) == [
        "no column is left to predict from; 'k' is constant"
    ]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a"] * N, ["has the single class 'a'; allowed: two classes or more"]),
        (range(N), ["has 60 different values in 60 rows; allowed: classes of several rows each; predicting"]),
        (
            [f"t{i}" for i in range(N)],
            ["has 60 different values in 60 rows; allowed: classes of several rows"],
        ),
        (
            np.arange(N) * 0.37,
            ["has the number 0.37; predicting a number is regression, which is out of scope"],
        ),
        ([np.nan, *[0.5] * (N - 1)], ["1 of 60 rows have none", "has the number 0.5; predicting a number"]),
        ([1e300, 1] * 30, ["has the number 1e+300; predicting a number is regression"]),
        ([2**53, 2**53 + 1] * 30, ["has the number 9.0072e+15; predicting a number is regression"]),
        ([None, "a", *["b"] * (N - 2)], ["1 of 60 rows have none; remove these rows"]),
        (pd.date_range("2020-01-01", periods=N).date, ["has dates or times; allowed: numbers, text, bools"]),
    ],
)
def test_targets_that_cannot_be_used(tmp_path, labels, said):
    found = refused(tmp_path / "t.csv", table().assign(y=labels), target="y")
    assert len(found) == len(said)
    for problem, text in zip(found, said, strict=True):
        assert problem.startswith(f"data.target=y: {text}")


@pytest.mark.parametrize(
    ("labels", "names", "first"),
    [
        ([10, 9] * 30, ("9", "10"), [1, 0]),
        ([2.0, -1.0, 3.0] * 20, ("-1", "2", "3"), [1, 0, 2]),
        ([True, False] * 30, ("false", "true"), [1, 0]),
        (["b", "Ä", "a"] * 20, ("a", "b", "Ä"), [1, 2, 0]),
    ],
)
def test_classes(tmp_path, labels, names, first):
    for name in ("t.csv", "t.parquet"):
        found = made(tmp_path / name, table().assign(y=labels), target="y", test_size=0.01)
        assert found.description.class_names == names
        y = [*found.arrays[1], *found.arrays[3]]
        assert sorted(y) == sorted(first * (N // len(first)))
    assert list(found.arrays[1][: len(first) - 1]) == first[:-1]


@pytest.mark.parametrize(
    ("texts", "hint"),
    [(map(str, range(1001)), "; predicting a number is regression, which is out of scope"), (NAMES, "")],
)
def test_a_target_of_many_classes(tmp_path, texts, hint):
    labels = np.repeat([*texts], 4)
    many = pd.DataFrame({"x": np.arange(len(labels)) % 7, "y": labels})
    assert refused(tmp_path / "t.csv", many, target="y") == [
        f"data.target=y: has 1,001 different values; allowed: 1,000 classes{hint}"
    ]
    found = made(tmp_path / "t.csv", many[4:], target="y").description
    assert (found.n_classes, found.n_test) == (1000, 800)


def test_many_different_values_are_refused_in_no_time():
    n = 20_000
    target = Values("y", np.arange(n, dtype=np.float64), None)
    start = time.process_time()
    with pytest.raises(Refused, match=r"has 20,000 different values in 20,000 rows; allowed: classes of"):
        as_classes(target, n, "data.target=y")
    assert time.process_time() - start < 2  # of 10 s, where each category was looked up in a new set


def test_a_table_of_one_row(tmp_path):
    assert refused(tmp_path / "t.csv", birds(1)) == [
        f"data.target=species: has the single class {birds(1).species[0]!r}; allowed: two classes or more"
    ]
