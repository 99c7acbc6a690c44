"""The importance of a table's columns, against scikit-learn's on the raw rows."""

import numpy as np
import pytest
import torch
from helpers.configs import MLP
from helpers.tables import birds, made
from sklearn.inspection import permutation_importance

from lockstep.data.datasets import Dataset
from lockstep.data.splits import stratified
from lockstep.data.table_model import TableModel
from lockstep.pictures import column_importance
from lockstep.training import networks
from lockstep.training.random_streams import generator


class OfRawRows:
    """A network on the table's own rows, as scikit-learn takes a classifier."""

    def __init__(self, model):
        self.model = model

    def fit(self, rows, y):
        return self

    def score(self, rows, y):
        return (self.model.predict(rows)[self.model.target] == y).mean()


def made_of(path, table, **changes):
    prepared = made(path, table, **changes)
    return Dataset(prepared.description, *map(torch.from_numpy, prepared.arrays))


@pytest.fixture
def dataset(tmp_path):
    return made_of(tmp_path / "t.parquet", birds(200), test_size=0.4)


def test_columns_are_as_important_as_scikit_learn_says_of_the_raw_rows(dataset):
    data = dataset.description
    network = networks.build(MLP, data.n_features, data.n_classes, generator(1, "init"))
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 8  # else it says nearly the same of all rows
    found = column_importance.importances(network, dataset)

    table = birds(200)
    model = TableModel(network.eval(), "float32", "species", data.class_names, data.table.columns)
    rows = table[[column.name for column in data.table.columns]]
    predicted = model.predict(rows)["species"].to_numpy()
    logits = network(dataset.x_test).argmax(1).numpy()
    names = np.array(data.class_names, object)
    y = names[dataset.y_test.numpy()]
    _, test_N = stratified(table.species, len(y), 0)
    assert (predicted[test_N] == names[logits]).all()
    expected = permutation_importance(OfRawRows(model), rows.iloc[test_N], y, n_repeats=5, random_state=0)
    for column, mean, std in zip(rows, expected.importances_mean, expected.importances_std, strict=True):
        assert found[column] == pytest.approx((mean, std), abs=1e-12)
    means = [mean for mean, _ in found.values()]
    assert means == sorted(means, reverse=True) and means[0] > 0.05


def test_few_of_many_rows_are_used(dataset, monkeypatch):
    monkeypatch.setattr(column_importance, "ROWS", 10)
    data = dataset.description
    network = networks.build(MLP, data.n_features, data.n_classes, generator(1, "init"))
    means = [mean for mean, _ in column_importance.importances(network, dataset).values()]
    assert np.allclose(np.array(means) * 50, np.round(np.array(means) * 50))  # of 10 rows, 5 times


@pytest.mark.parametrize(("n_rows", "n_measured"), [(200, 200), (80, 80), (79, 77), (20, 20)])
def test_few_of_many_rows_are_of_all_classes_however_the_file_is_sorted(
    tmp_path, monkeypatch, n_rows, n_measured
):
    monkeypatch.setattr(column_importance, "ROWS", n_rows)
    table = birds(200).sort_values("species", ignore_index=True)
    dataset = made_of(tmp_path / "t.parquet", table, test_size=0.4)
    measured = column_importance._measured(dataset.y_test.numpy())
    assert len(measured) == min(n_measured, 80)
    n_C, n_measured_C = dataset.y_test.bincount(), dataset.y_test[measured].bincount(minlength=3)
    assert (n_measured_C - n_C * len(measured) / 80).abs().max() <= 1
    network = networks.build(MLP, dataset.description.n_features, 3, generator(1, "init"))
    scored = []
    monkeypatch.setattr(
        column_importance, "permutation_importance", lambda model, rows, y, **_: scored.append(y) or Found()
    )
    column_importance.importances(network, dataset)
    assert scored[0].tolist() == dataset.y_test[measured].tolist()


class Found:
    """What scikit-learn returns of four columns."""

    importances_mean = importances_std = np.zeros(4)
