"""labels.py: labels of many kinds are mapped by the training set's sorted classes, in both parts alike."""

import numpy as np
import pytest
from helpers.data_files import Y, save

from lockstep.config.data_config import ArraysConfig
from lockstep.config.errors import Refused
from lockstep.data import datasets

ANIMALS = np.array(["cat", "dog", "emu"])


def load(path):
    config = ArraysConfig(
        name="arrays", path=str(path), batch_size=2, drop_last=True, val_size=0, shuffle_seed=0
    )
    return datasets.load(config)


@pytest.mark.parametrize(
    "encoded, class_names",
    [
        (lambda y: y, "012"),
        (lambda y: y.astype(np.uint8), "012"),
        (lambda y: y * 1.0, "012"),
        (lambda y: y.astype(np.float16), "012"),
        (lambda y: y + 1, "123"),
        (lambda y: y - 1, ("-1", "0", "1")),
        (lambda y: 10 * y - 1e9, ("-1000000000", "-999999990", "-999999980")),
        (lambda y: np.uint64([3, 2**62, 2**63 - 1])[y], ("3", str(2**62), str(2**63 - 1))),
        (lambda y: y[:, None], "012"),
        (lambda y: y[:, None] * 1.0, "012"),
        (lambda y: np.eye(3, dtype=np.uint8)[y], "012"),
        (lambda y: np.eye(3)[y], "012"),
        (lambda y: np.eye(3)[y] > 0, "012"),
        (lambda y: np.eye(5, dtype=int)[y + 2], "234"),
        (lambda y: ANIMALS[y], ANIMALS),
        (lambda y: ANIMALS[y][:, None], ANIMALS),
        (lambda y: np.char.encode(np.array(["ape", "bär", "cow"]), "utf-8")[y], ("ape", "bär", "cow")),
        (lambda y: np.array(["10", "9", "a b"])[y], ("10", "9", "a b")),
    ],
)
def test_labels_of_any_kind(tmp_path, encoded, class_names):
    y_train, y_test = encoded(Y), encoded(np.array([2, 0]))
    dataset = load(save(tmp_path / "own.npz", y_train=y_train, y_test=y_test))
    assert (dataset.y_train.tolist(), dataset.y_test.tolist()) == (Y.tolist(), [2, 0])
    assert dataset.description.class_names == tuple(class_names)


def test_bools(tmp_path):
    dataset = load(save(tmp_path / "own.npz", y_train=Y > 0, y_test=Y[:2] > 0))
    assert (dataset.y_train.tolist(), dataset.y_test.tolist()) == ([0, 1, 1, 1], [0, 1])
    assert dataset.description.class_names == ("False", "True")


@pytest.mark.parametrize(
    "y_train, y_test, problem",
    [
        (Y, Y[:2] + 2, "y_test has labels that y_train lacks: 3; y_train's classes are 0, 1, 2"),
        (Y + 1, Y[:2], "y_test has labels that y_train lacks: 0; y_train's classes are 1, 2, 3"),
        (Y * 2, Y[:2], "y_test has labels that y_train lacks: 1; y_train's classes are 0, 2, 4"),
        (
            ANIMALS[Y],
            np.array(["dog", "fox"]),
            "y_test has labels that y_train lacks: fox; y_train's classes are cat, dog, emu",
        ),
        (
            np.eye(4)[Y],
            np.eye(4)[[0, 3]],
            "y_test has labels that y_train lacks: 3; y_train's classes are 0, 1, 2",
        ),
        (
            np.array(["1", "2", "1", "2"]),
            Y[1:3],
            "y_train holds text, y_test numbers; allowed: the same in both",
        ),
        (Y, Y[:2] > 0, "y_train holds numbers, y_test bools; allowed: the same in both"),
        (np.eye(3)[Y], Y[:2], "y_train holds one-hot rows of 3, y_test numbers; allowed: the same in both"),
        (
            np.eye(3)[Y],
            np.eye(2)[Y[:2]],
            "y_train holds one-hot rows of 3, y_test one-hot rows of 2; allowed: the same in both",
        ),
    ],
)
def test_test_labels_that_training_lacks_are_refused_by_name(tmp_path, y_train, y_test, problem):
    path = save(tmp_path / "own.npz", y_train=y_train, y_test=y_test)
    with pytest.raises(Refused) as caught:
        load(path)
    assert caught.value.problems == (f"data.path={path}: {problem}",)


def test_a_target_that_is_no_class_is_refused(tmp_path):
    x, prices = np.ones((60, 2)), np.arange(60) * 1000
    path = save(tmp_path / "own.npz", x_train=x, y_train=prices, x_test=x, y_test=prices)
    with pytest.raises(
        Refused, match="y_train has 60 different labels for 60 instances; allowed: classes of"
    ):
        load(path)
    numbered = prices // 1000  # 0 to n_classes - 1 was always accepted
    path = save(tmp_path / "own.npz", x_train=x, y_train=numbered, x_test=x, y_test=numbered)
    assert load(path).description.n_classes == 60
