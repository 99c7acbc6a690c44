"""data.py: the data sets as tensors, each loaded once, and the minibatches drawn from them."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.data_files import GOOD, PIXELS, X, good_source, save, tiny

from lockstep.config.data_config import ArraysConfig, DigitsConfig, DownloadedConfig
from lockstep.config.errors import Refused
from lockstep.data import datasets, downloads, sources
from lockstep.data.description import DataDescription

STREAM = dict(batch_size=2, drop_last=True, val_size=0, shuffle_seed=0)


def downloaded(root, name="mnist", **stream):
    return DownloadedConfig(name=name, root=root and str(root), **STREAM | stream)


def arrays(path, **stream):
    return ArraysConfig(name="arrays", path=str(path), **STREAM | stream)


def test_mnist(tmp_path, monkeypatch):
    from torchvision.transforms import ToTensor

    monkeypatch.setitem(downloads.DOWNLOADED, "mnist", tiny(("a friend", good_source)))
    dataset = datasets.load(downloaded(tmp_path / "cache" / "lockstep"))
    assert (dataset.description.name, dataset.description.source) == ("mnist", "torchvision.datasets.MNIST")
    assert (
        dataset.description.n_features,
        dataset.description.n_classes,
        dataset.description.feature_shape,
    ) == (784, 10, (28, 28))
    assert dataset.description.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert dataset.x_train.dtype == dataset.x_test.dtype == torch.float32
    assert dataset.y_train.dtype == dataset.y_test.dtype == torch.int64
    assert (dataset.y_train.tolist(), dataset.y_test.tolist()) == ([5, 0, 4, 1], [7, 2])
    # Bit for bit what torchvision makes of each of the 256 values of a pixel.
    expected = torch.stack([ToTensor()(image) for image in PIXELS]).reshape(4, 784)
    assert len(set(expected.flatten().tolist())) == 256
    assert torch.equal(dataset.x_train, expected) and torch.equal(dataset.x_test, expected[:2])

    # The same object for the same data, whatever the stream and however the folder is named.
    monkeypatch.setattr(sources, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for root in (None, "~/cache/lockstep", "cache/lockstep"):
        assert datasets.load(downloaded(root, batch_size=3, val_size=1, shuffle_seed=9)) is dataset
    assert datasets.load(downloaded(tmp_path / "other")) is not dataset


@pytest.mark.mnist
@pytest.mark.parametrize(
    "name, first, mean, std, digest",
    [
        ("mnist", "5", 0.1307, 0.3081, "0edce7ea46b7b3bc6c29f4a35cdd2828"),
        ("fashion_mnist", "Ankle boot", 0.2860, 0.3530, "86ec3963e985047f8d153125a4e2f14a"),
    ],
)
def test_the_real_ones(name, first, mean, std, digest):
    try:
        dataset = datasets.load(downloaded(None, name))
    except Refused as refused:
        pytest.skip(str(refused))
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((60000, 784), (10000, 784))
    assert dataset.description.class_names[dataset.y_train[0]] == first
    assert dataset.x_train.mean().item() == pytest.approx(mean, abs=5e-5)
    assert dataset.x_train.std().item() == pytest.approx(std, abs=5e-5)
    assert dataset.description.digest == digest


def test_digits():
    from sklearn.datasets import load_digits

    dataset = datasets.load(DigitsConfig(name="digits", **STREAM))
    assert (dataset.description.name, dataset.description.source) == (
        "digits",
        "sklearn.datasets.load_digits",
    )
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((1437, 64), (360, 64))
    assert (dataset.description.feature_shape, dataset.description.n_classes) == ((8, 8), 10)
    assert dataset.y_test.bincount().tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.cat([dataset.x_train, dataset.x_test]), torch.cat([dataset.y_train, dataset.y_test])
    ours, theirs = np.column_stack([x, y]), np.column_stack([pixels / 16, labels])
    assert sorted(ours.tolist()) == sorted(theirs.tolist())
    assert dataset.description.digest == "2d645d6543ac7109ae896efc7b06373b"
    assert datasets.load(DigitsConfig(name="digits", **STREAM | {"batch_size": 7})) is dataset


def test_sklearn_and_torchvision_are_imported_when_needed():
    code = "import sys, lockstep.data.datasets; print({'sklearn', 'torchvision'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


@pytest.mark.parametrize("cast, scale", [(float, 1), (np.uint8, 255), (bool, 1), (">i2", 1)])
def test_arrays(tmp_path, monkeypatch, cast, scale):
    x = np.asfortranarray(X).astype(cast)
    own = GOOD | dict(x_train=x, x_test=x[:2])
    path = save(tmp_path / "own.npz", **own)
    dataset = datasets.load(arrays(path))
    assert (dataset.description.name, dataset.description.source) == ("arrays", str(path))
    expected = x.reshape(4, 6).astype(np.float32) / np.float32(scale)
    assert np.array_equal(dataset.x_train, expected) and np.array_equal(dataset.x_test, expected[:2])
    assert dataset.x_train.dtype == dataset.x_test.dtype == torch.float32
    assert (dataset.y_train.tolist(), dataset.y_test.tolist()) == ([0, 1, 2, 1], [0, 1])
    assert (dataset.description.feature_shape, dataset.description.class_names) == ((2, 3), ("0", "1", "2"))
    sha256 = hashlib.sha256()
    for array in own.values():
        sha256.update(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes())
    assert dataset.description.digest == sha256.hexdigest()[:32]
    monkeypatch.chdir(tmp_path)
    assert datasets.load(arrays("own.npz", batch_size=3)) is dataset
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.load(arrays("~/own.npz")) is dataset


def test_a_rewritten_file_is_read_again(tmp_path):
    path = save(tmp_path / "own.npz")
    os.utime(path, (1, 1))
    assert datasets.load(arrays(path)).x_train[0, 0] == 0
    assert datasets.load(arrays(save(path, x_train=X + 5))).x_train[0, 0] == 5
    path.unlink()
    with pytest.raises(Refused, match="there is no such file"):
        datasets.load(arrays(path))


def described(n):
    return DataDescription("arrays", "0" * 32, (1,), ("0", "1"), n, n, "a test")


def test_check_stream():
    def problems(**stream):
        return sources.check_stream(DigitsConfig(name="digits", **STREAM | stream), described(6000))

    assert problems(batch_size=6000) == []
    assert problems(batch_size=5000, val_size=1000) == []
    assert problems(batch_size=1, val_size=5999) == []
    assert problems(batch_size=5001, val_size=1000) == [
        "data.batch_size=5001: larger than the 5,000 training instances that data.val_size=1000 leaves; "
        "allowed: 1 to 5000"
    ]
    too_large = "data.batch_size=6001: larger than the 6,000 training instances; allowed: 1 to 6000"
    assert problems(batch_size=6001, drop_last=False) == [too_large]
    none_left = (
        "data.val_size=6000: leaves none of the 6,000 training instances to train on; allowed: 0 to 5999"
    )
    assert problems(batch_size=6001, val_size=6000) == [none_left, too_large]
