"""Folds: those of scikit-learn, each instance tested once, with one copy on disk for all of them."""

import os

import numpy as np
import pytest
from helpers.data_files import save
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

from lockstep.config.data_config import ArraysConfig, DigitsConfig
from lockstep.config.errors import Refused
from lockstep.data import datasets, folds, sources
from lockstep.data.minibatches import split

STREAM = dict(batch_size=2, drop_last=True, val_size=0, shuffle_seed=0)
RNG = np.random.default_rng(0)
X, Y = RNG.random((25, 3)) * 9, np.repeat(["a", "b", "c"], [12, 9, 4])


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A fold of a user's file, whose test set has the last five instances."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = save(tmp_path / "own.npz", x_train=X[5:], y_train=Y[5:], x_test=X[:5], y_test=Y[:5])
    sources._load_fold.cache_clear()
    config = dict(name="arrays", path=str(path), **STREAM)
    return lambda fold, n=4, **more: sources.load(ArraysConfig(**config | dict(fold=fold, folds=n) | more))


def digits(fold, **more):
    return DigitsConfig(name="digits", **STREAM | dict(fold=fold, folds=5) | more)


def test_the_folds_are_those_of_scikit_learn():
    x, y = load_digits(return_X_y=True)
    rows, loaded = [], [datasets.load(digits(fold)) for fold in range(5)]
    for dataset, (train, test) in zip(
        loaded, StratifiedKFold(5, shuffle=True, random_state=0).split(x, y), strict=True
    ):
        assert np.array_equal(dataset.x_test * 16, x[test]) and np.array_equal(dataset.y_test, y[test])
        assert sorted((dataset.x_train * 16).tolist()) == sorted(x[train].tolist())
        assert (dataset.description.n_train, dataset.description.n_test) == (len(train), len(test))
        assert dataset.x_train.shape == (len(train), 64) and dataset.y_train.shape == (len(train),)
        counts = np.bincount(y[train])
        assert dataset.description.majority == counts.argmax()
        assert dataset.description.majority_accuracy == (y[test] == counts.argmax()).mean()
        rows += test.tolist()
    assert sorted(rows) == list(range(len(y)))
    assert len({dataset.description.digest for dataset in loaded}) == 5
    [pool_digest] = {dataset.description.pool_digest for dataset in loaded}
    assert pool_digest not in {"", datasets.load(DigitsConfig(name="digits", **STREAM)).description.digest}
    assert datasets.load(digits(0, folds=4)).description.pool_digest != pool_digest


def test_all_instances_of_ones_own_data_are_divided_and_are_on_disk_once(own):
    loaded = [own(fold) for fold in range(4)]
    pairs = {tuple(x): y for x, y in zip(X.astype(np.float32).tolist(), Y.tolist(), strict=True)}
    tested = []
    for source in loaded:
        dataset, names = datasets.mapped(source.files()), source.description.class_names
        for x_NxF, y_N in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
            assert [pairs[tuple(x)] for x in x_NxF.tolist()] == [names[y] for y in y_N]
        tested += map(tuple, dataset.x_test.tolist())
        assert not {*map(tuple, dataset.x_train.tolist())} & {*map(tuple, dataset.x_test.tolist())}
        assert dataset.y_test.bincount(minlength=3).tolist()[2] == 1  # stratified: four of them, four folds
    assert sorted(tested) == sorted(pairs)
    assert len({os.stat(source.files().paths[0]).st_ino for source in loaded}) == 1
    assert len({source.key for source in loaded}) == 4


def test_where_files_cannot_be_linked_they_are_copied(own, monkeypatch):
    expected = datasets.mapped(own(1).files())
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("other disk")))
    dataset = datasets.mapped(own(2).files())
    assert os.stat(own(2).files().paths[0]).st_nlink == 1
    assert np.array_equal(
        np.sort(dataset.x_train[:, 0]),
        np.sort(np.setdiff1d(X[:, 0].astype(np.float32), dataset.x_test[:, 0])),
    )
    assert not np.isin(expected.x_test, dataset.x_test).any()


def test_each_fold_is_standardized_by_what_it_trains_on(own):
    for fold in range(4):
        plain = datasets.mapped(own(fold).files())
        for val_size in (0, 6):
            source = own(fold, scale="standardize", val_size=val_size)
            dataset, fitted = datasets.mapped(source.files()), split(len(plain.x_train), val_size)[0]
            of_fitted = plain.x_train[fitted].double().numpy()
            for part in ("x_train", "x_test"):
                expected = (getattr(plain, part).numpy() - of_fitted.mean(0)) / of_fitted.std(0)
                assert np.allclose(getattr(dataset, part), expected, atol=1e-5)
            assert np.array_equal(dataset.y_train, plain.y_train)  # in the same order: the same minibatches
            assert source.description.digest != own(fold, scale="standardize", val_size=3).description.digest


def test_classes_that_are_too_rare(own, caplog):
    assert own(0, 12).description.n_test == 3
    [warning] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.endswith("data.folds=12: some folds have none of the 4 instances of class c")
    with pytest.raises(
        Refused, match=r"data\.folds=13: allowed: 2 to 12, the instances of the most frequent class"
    ):
        own(0, 13)


@pytest.mark.parametrize("labels_N", [np.array(list("abcabcab")), np.arange(8) % 2])
def test_a_division_depends_on_the_seed_alone(labels_N):
    assert np.array_equal(folds.divided(labels_N, 2, 1), folds.divided(labels_N, 2, 1))
    assert any((folds.divided(labels_N, 2, seed) != folds.divided(labels_N, 2, 0)).any() for seed in (1, 2))
