"""The user's own table as a data set."""

import logging

import numpy as np
import pytest
from helpers.tables import birds, made, refused, write
from sklearn.preprocessing import StandardScaler

from lockstep.config.data_config import TableConfig
from lockstep.data import sources, tables
from lockstep.data.datasets import load
from lockstep.data.folds import divided
from lockstep.data.splits import stratified

STREAM = dict(batch_size=2, drop_last=True, val_size=0, shuffle_seed=0)


def config(path, **changes):
    return TableConfig(name="table", path=str(path), **{"target": "species", **STREAM, **changes})


def test_features_and_labels(tmp_path):
    table = birds()
    found = made(tmp_path / "t.csv", table)
    description = found.description
    assert description.class_names == ("Adelie", "Chinstrap", "Gentoo")
    assert (description.n_train, description.n_test, description.feature_shape) == (48, 12, (7,))
    assert [name for column in description.table.columns for name in column.feature_names] == [
        "mass",
        *("island=Biscoe", "island=Dream", "island=Torgersen"),
        "flipper",
        *("is_banded=false", "is_banded=true"),
    ]
    train, test = stratified(table.species, 12, 0)
    x_train, y_train, x_test, y_test, x_blank = found.arrays
    for x, y, rows in ((x_train, y_train, train), (x_test, y_test, test)):
        part = table.iloc[rows]
        expected = (
            StandardScaler().fit(table[["mass", "flipper"]].iloc[train]).transform(part[["mass", "flipper"]])
        )
        assert np.array_equal(x[:, [0, 4]], expected.astype(np.float32))
        for place, is_such in (
            (1, part.island == "Biscoe"),
            (3, part.island == "Torgersen"),
            (5, ~part.is_banded),
            (6, part.is_banded),
        ):
            assert np.array_equal(x[:, place], is_such)
        assert [description.class_names[label] for label in y] == list(part.species)
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert np.array_equal(x_blank, np.zeros((1, 7)))


def test_equal_content_is_the_same_data_whatever_its_file(tmp_path):
    table = birds().assign(mass=birds().mass.where(birds().mass < 5000), note=["", "x"] * 30, k=1)
    first = made(tmp_path / "a.csv", table, missing="impute")
    copies = {
        "b.parquet": table.assign(island=table.island.astype("category"), note=[None, "x"] * 30),
        "c.tsv": table.to_csv(index=False, sep="\t"),
        "b2.parquet": table,  # with empty texts
        "d.csv": table.drop(columns="k").to_csv(index=False, sep=";"),
        "e.csv": table.assign(k=2),  # what isn't used doesn't count
    }
    for name, copy in copies.items():
        found = made(tmp_path / name, copy, missing="impute")
        assert found.description.digest == first.description.digest
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found.arrays, first.arrays, strict=True))
    others = {
        "value": table.assign(flipper=table.flipper + (table.index == 7)),
        "name": table.rename(columns={"flipper": "wing"}),
        "order": table[::-1],
        "label": table.assign(species=table.species.replace("Adelie", "Adélie")),
    }
    found = [made(tmp_path / "o.csv", other, missing="impute") for other in (*others.values(), table)]
    splits = ({"split_seed": 1}, {"test_size": 0.3}, {"val_size": 5})
    found += [made(tmp_path / "o.csv", missing="impute", **split) for split in splits]
    assert len({each.description.digest for each in found}) == 8  # executors tell data sets apart by it


def test_features_and_drop_choose_columns(tmp_path):
    path = write(tmp_path / "t.csv", birds())
    chosen = made(path, features=("flipper", "mass"))
    assert [column.name for column in chosen.description.table.columns] == ["mass", "flipper"]
    left = made(path, drop=("island", "is_banded"))
    assert left.description.digest == chosen.description.digest != made(path).description.digest
    it_has = f"data.path={path} has no such column; it has mass, island, flipper, is_banded, species"
    assert refused(path, features=("mass", "iland"), target="specie", drop=("no",)) == [
        f"data.target=specie: {it_has}; did you mean species?",
        f"data.features=iland: {it_has}; did you mean island?",
        f"data.drop=no: {it_has}",
    ]
    headless = write(tmp_path / "h.csv", birds().select_dtypes("number").to_csv(index=False, header=False))
    assert refused(headless)[0].endswith("; is there no line of names above?")


def test_the_transformer_is_fitted_without_validation_and_test_rows(tmp_path):
    table = birds()
    found = made(tmp_path / "t.csv", table, val_size=10, split_seed=3)
    train, _ = stratified(table.species, 12, 3)
    fitted, validation = stratified(table.species.iloc[train], 10, 3)
    mass = table.mass.iloc[train[fitted]]
    [column] = [column for column in found.description.table.columns if column.name == "mass"]
    assert (column.mean, column.scale) == (pytest.approx(mass.mean()), pytest.approx(mass.std(ddof=0)))
    dataset = load(config(tmp_path / "t.csv", val_size=10, split_seed=3))
    train_N, val_N = dataset.split(config(tmp_path / "t.csv", val_size=10, split_seed=3))
    assert (train_N.tolist(), val_N.tolist()) == (fitted.tolist(), validation.tolist())
    counts = np.unique(table.species.iloc[train[val_N]], return_counts=True)[1]
    assert np.abs(counts - 10 * table.species.value_counts(sort=False).sort_index() / 60).max() < 1


def test_missing_values_are_imputed_by_the_training_split(tmp_path):
    table = birds()
    table.loc[::7, "mass"] = np.nan
    table.loc[::9, "island"] = None
    found = made(tmp_path / "t.csv", table, missing="impute")
    train, _ = stratified(table.species, 12, 0)
    by_name = {column.name: column for column in found.description.table.columns}
    assert by_name["mass"].fill == table.mass.iloc[train].median()
    assert by_name["island"].fill == table.island.iloc[train].mode()[0]
    assert [column.n_missing for column in by_name.values()] == [9, 7, 0, 0]
    assert by_name["flipper"].fill == table.flipper.iloc[train].median()  # of rows to come


def test_a_file_with_the_test_set(tmp_path):
    table, other = birds(), birds(80).tail(20)
    other = other.assign(island=other.island.replace("Dream", "Anvers"))[[*other.columns[::-1]]]
    path, test_path = write(tmp_path / "t.csv", table), write(tmp_path / "u.parquet", other)
    found = made(path, test_path=test_path)
    assert (found.description.n_train, found.description.n_test) == (60, 20)
    x_test, names = found.arrays[2], found.description.class_names
    assert [names[label] for label in found.arrays[3]] == list(other.species)
    assert found.arrays[1].tolist() == [names.index(name) for name in table.species]  # in the file's order
    mean, scale = table.mass.mean(), table.mass.std(ddof=0)
    assert np.allclose(x_test[:, 0], (other.mass - mean) / scale)
    assert x_test[:, 1:4].sum(axis=1).tolist() == (other.island != "Anvers").tolist()
    assert found.description.digest != made(path).description.digest

    def said(changed):
        return refused(path, test_path=write(tmp_path / "v.csv", changed))

    where = f"data.test_path={tmp_path / 'v.csv'}"
    assert said(other.drop(columns="mass")) == [f"{where}: lacks the columns mass of data.path={path}"]
    assert said(other.assign(mass="heavy")) == [
        f"{where}: column 'mass' has text, but numbers in data.path={path}"
    ]
    assert said(other.assign(species="Emperor")) == [
        "data.test_path: has classes that data.path lacks: Emperor"
    ]
    assert said(other.assign(mass=None)) == [
        "values are missing in mass (20); data.missing=impute fills them in"
    ]
    assert made(path, test_path=tmp_path / "v.csv", missing="impute").description.n_test == 20


def test_folds(tmp_path):
    table, path = birds(), tmp_path / "t.csv"
    made(path, table)
    found = [made(path, test_size=None, fold=fold, folds=4, split_seed=3) for fold in range(4)]
    fold_N = divided(table.species, 4, 3)
    for fold, each in enumerate(found):
        names, description = each.description.class_names, each.description
        assert [names[label] for label in each.arrays[3]] == list(table.species[fold_N == fold])
        mass = table.mass[fold_N != fold]
        assert description.table.columns[0].mean == pytest.approx(mass.mean())
        majority = table.species[fold_N != fold].value_counts().index[0]
        assert (description.fold, description.majority) == (fold, names.index(majority))
        share = (table.species[fold_N == fold] == majority).mean()
        assert description.majority_accuracy == pytest.approx(share)
    assert len({each.description.digest for each in found}) == 4
    assert len({each.description.pool_digest for each in found}) == 1
    other = made(path, test_size=None, fold=0, folds=4)
    assert other.description.pool_digest != found[0].description.pool_digest


def test_folds_warn_of_classes_that_are_too_rare(tmp_path):
    path = write(tmp_path / "t.csv", birds().assign(species=[*["Emperor"] * 3, *["Adelie"] * 57]))

    def warnings(**split):
        return [text for level, text in made(path, **split).remarks if level == logging.WARNING]

    said = "data.folds=4: some folds have none of the 3 instances of class Emperor"
    assert [warnings(test_size=None, fold=fold, folds=4) for fold in range(4)] == [[said]] * 4
    assert warnings(test_size=None, fold=0, folds=3) == warnings() == []


def test_too_large_a_test_set(tmp_path):
    path = write(tmp_path / "t.csv", birds(20))
    assert refused(path, test_size=0.99) == [
        "data.test_size=0.99: 20 of 20 rows; allowed: 17, so that the training set has a row of each class"
    ]


def test_numbers_far_beyond_those_trained_on(tmp_path):
    path = write(tmp_path / "t.csv", birds().assign(mass=1e-30 * birds().mass))
    test_path = write(tmp_path / "u.csv", birds().assign(mass=1e30 * birds().mass))
    assert refused(path, test_path=test_path) == ["column 'mass' has numbers far beyond those trained on"]


def test_features_that_need_too_much_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "physical_bytes", lambda: 2**10)
    assert refused(tmp_path / "t.csv", birds()) == [
        "7 features need 0.0 GiB, more than half of this machine's memory (0.0 GiB)"
    ]


def test_a_table_is_kept_by_its_content_and_settings(tmp_path, monkeypatch):
    path = write(tmp_path / "t.csv", birds())
    first = load(config(path))
    monkeypatch.setattr(tables, "prepare", lambda wanted: pytest.fail("it is read again"))
    sources._load_table.cache_clear()
    again = load(config(write(tmp_path / "moved.csv", birds()), batch_size=7))
    assert again.description.table == first.description.table
    assert again.description.digest == first.description.digest
    assert again.x_train.equal(first.x_train)
    with pytest.raises(pytest.fail.Exception, match="it is read again"):
        load(config(path, split_seed=1))


def test_check_stream(tmp_path):
    path = write(tmp_path / "t.csv", birds())
    description = sources.load(config(path)).description
    assert sources.check_stream(config(path, val_size=45), description) == []
    assert sources.check_stream(config(path, val_size=46), description) == [
        "data.val_size=46: leaves too few, for 3 classes, of the 48 training instances to train on;"
        " allowed: 0 to 45"
    ]


def test_wanted_is_all_that_a_tables_features_depend_on(tmp_path):
    assert tables.Wanted.of(config(tmp_path / "t.csv")) == tables.Wanted.of(
        config(tmp_path / "t.csv", batch_size=9, shuffle_seed=4, drop_last=False)
    )
