"""A network that takes a table's raw rows, as they are read by pandas."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tables import birds, made

from lockstep.data import table_model
from lockstep.data.table_model import Column, TableModel

COLUMNS = (
    Column("mass", None, 4000.0, 500.0, fill=4500.0),
    Column("island", ("Biscoe", "Dream"), fill="Dream"),
    Column("is_banded", ("false", "true")),
    Column("year", None, 2008.0, 1.0),
)


def network(x_NxF):
    """Logits: the mass, and everything else."""
    return torch.stack([x_NxF[:, 0], x_NxF[:, 1:].sum(dim=1)], dim=1)


MODEL = TableModel(network, "float32", "species", ("Adelie", "Gentoo"), COLUMNS)

ROWS = pd.DataFrame(
    {
        "year": [2007, 2008, 2009],
        "is_banded": [True, False, True],
        "island": ["Biscoe", None, "Anvers"],
        "mass": [4200, np.nan, 3000.5],
    },
    index=[7, 8, 9],
)


def test_raw_rows():
    found = MODEL.predict(ROWS)
    assert list(found) == ["species", "probability of Adelie", "probability of Gentoo"]
    assert list(found.index) == [7, 8, 9]
    logits = torch.tensor([[0.4, 1.0], [1.0, 2.0], [-1.999, 2.0]], dtype=torch.float32)
    assert found.iloc[:, 1:].to_numpy() == pytest.approx(logits.double().softmax(1).numpy())
    assert found.species.tolist() == ["Gentoo"] * 3


def test_a_table_s_own_rows_get_its_features(tmp_path):
    table = birds()
    table.loc[::7, "mass"] = np.nan
    table.loc[::9, "island"] = None
    made_of = made(tmp_path / "t.csv", table, missing="impute", test_path=tmp_path / "t.csv")
    seen = []
    columns = made_of.description.table.columns
    model = TableModel(lambda x: seen.append(x) or x[:, :3], "float64", "species", ("a", "b", "c"), columns)
    for rows in (pd.read_csv(tmp_path / "t.csv"), table, table.astype(object)):
        model.predict(rows)
    for x_NxF in seen:
        assert x_NxF.dtype == torch.float64
        assert np.array_equal(x_NxF, made_of.arrays[2])


READ = (
    {},
    {"dtype": object},
    {"dtype": str, "keep_default_na": False},
    {"dtype_backend": "numpy_nullable"},
    {"dtype_backend": "pyarrow"},
)


@pytest.mark.parametrize("read", READ, ids=range(len(READ)))
@pytest.mark.parametrize(
    ("values", "categories"),
    [
        (["true", "0", "1", "False"], ("false", "true")),
        (["true", "0", "", "1"], ("false", "true")),
        (["True", "1", "", "0"], ("false", "true")),
        (["true", "0", "?", "u", "t"], ("0", "?", "t", "true", "u")),
        (["true", "false"], ("false", "true")),
        (["True", "", "False"], ("false", "true")),
        (["TRUE", "true", "False"], ("false", "true")),
        (["0", "1"], None),
    ],
    ids=str,
)
def test_bools_and_what_looks_like_them_get_their_features_however_pandas_reads_them(
    tmp_path, values, categories, read
):
    path = tmp_path / "t.csv"
    table = birds().assign(flag=np.resize(values, 60))
    made_of = made(path, table, target="species", missing="impute", test_path=path)
    columns = made_of.description.table.columns
    assert columns[-1].categories == categories
    seen = []
    model = TableModel(lambda x: seen.append(x) or x[:, :3], "float32", "species", ("a", "b", "c"), columns)
    rows = pd.read_csv(path, **read)
    model.predict(rows)
    assert np.array_equal(seen[-1], made_of.arrays[2])
    without_bools = table[table.flag.isin(["0", "1", ""])]  # where there are such, pandas reads numbers
    without_bools.to_csv(path, index=False)
    model.predict(pd.read_csv(path, **read))
    assert np.array_equal(seen[-1], made_of.arrays[2][without_bools.index])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mass": ["heavy", 1, 2]}, "column 'mass' has numbers: could not convert string to float: 'heavy'"),
        ({"mass": [np.inf, 1, 2]}, "column 'mass': infinite numbers"),
        ({"year": [2007, None, np.nan]}, "column 'year': 2 values are missing; none were in training"),
        ({"is_banded": ["", True, False]}, "column 'is_banded': 1 values are missing; none were in training"),
    ],
)
def test_rows_that_cannot_be_used(change, said):
    with pytest.raises(ValueError) as raised:
        MODEL.predict(ROWS.assign(**change))
    assert str(raised.value) == said


def test_it_needs_nothing_of_lockstep():
    with open(table_model.__file__) as file:
        assert "import lockstep" not in (text := file.read()) and "from lockstep" not in text
