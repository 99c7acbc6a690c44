"""scaling.py: data.scale, what auto decides, and that the digest tells differently scaled data apart."""

import logging

import numpy as np
import pytest
import torch
from helpers.configs import LOGREG, run_config, sgd
from helpers.data_files import PIXELS, good_source, save, tiny

from lockstep.config.data_config import ArraysConfig, DigitsConfig, DownloadedConfig
from lockstep.data import datasets, downloads, sources
from lockstep.data.minibatches import split
from lockstep.training.loop import train

STREAM = dict(batch_size=2, drop_last=True, val_size=0, shuffle_seed=0)


def load(path, **settings):
    return datasets.load(ArraysConfig(name="arrays", path=str(path), **STREAM | settings))


def saved(path, x):
    return save(path, x_train=x, x_test=x[:2])


def with_max(shape, largest):
    x = np.zeros((4, *shape), np.uint8)
    x[1:] = largest
    return x


@pytest.mark.parametrize(
    "shape, largest, scale",
    [
        ((5,), 1, "none"),
        ((5,), 16, "none"),
        ((5,), 127, "none"),
        ((5,), 128, "255"),
        ((5, 1, 1, 2), 127, "none"),
        ((5, 5, 2), 127, "none"),
        ((28, 28), 255, "255"),
        ((28, 28), 100, "255"),
        ((28, 28, 1), 100, "255"),
        ((3, 8, 8), 100, "255"),
        ((8, 8, 4), 100, "none"),
        ((8, 8), 16, "none"),
        ((8, 8, 3), 1, "none"),
        ((5, 1), 1, "none"),
    ],
)
def test_auto_divides_only_pixels_by_255(tmp_path, caplog, shape, largest, scale):
    caplog.set_level(logging.INFO, "lockstep")
    x = with_max(shape, largest)
    path = saved(tmp_path / "own.npz", x)
    dataset, as_before = load(path), load(path, scale="255")
    assert dataset.description.scale == scale
    expected = x.reshape(4, -1) / np.float32(255 if scale == "255" else 1)
    assert np.array_equal(dataset.x_train, expected) and np.array_equal(dataset.x_test, expected[:2])
    # b581169 divided all of uint8: its digest is that of the same scaling.
    assert (dataset.description.digest == as_before.description.digest) == (scale == "255")
    what = {"255": "divided by 255", "none": "used as they are"}[scale]
    taken = ", images are taken as N x H x W x C" if len(shape) == 3 and shape[2] in (1, 3, 4) else ""
    said = f"{path}: features are {what} (data.scale=auto){taken}; classes: 0, 1, 2"
    assert caplog.messages.count(said) == 1
    assert load(path, batch_size=3, val_size=1) is dataset
    assert caplog.messages.count(said) == 1


@pytest.mark.parametrize("shape", [(8, 8), (64,)])
def test_digits_saved_as_uint8_train_as_well_as_floats(tmp_path, shape):
    digits = datasets.load(DigitsConfig(name="digits", scale="none", **STREAM))
    accuracies = []
    for cast in (np.uint8, np.float64):
        x_train, x_test = (
            x.numpy().reshape(-1, *shape).astype(cast) for x in (digits.x_train, digits.x_test)
        )
        path = save(
            tmp_path / f"{np.dtype(cast)}.npz",
            **dict(x_train=x_train, y_train=digits.y_train, x_test=x_test, y_test=digits.y_test),
        )
        [run] = train([run_config(LOGREG, sgd(0.01), epochs=1)], load(path))
        accuracies.append(run.history.evaluations[-1].accuracy)
    assert accuracies[0] == accuracies[1] > 0.85


FLOATS = np.random.default_rng(0).normal([5, -3000, 0.01], [2, 500, 1e-4], (40, 3))


def floats(path, x=FLOATS, x_test=None):
    return save(path, x_train=x, y_train=np.arange(40) % 3, x_test=x[:2] if x_test is None else x_test)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, bool])
@pytest.mark.parametrize("val_size", [0, 15])
def test_standardize_is_fitted_on_the_training_split(tmp_path, dtype, val_size):
    x = (FLOATS.mean(0) < FLOATS if dtype is bool else FLOATS * 1e4).astype(dtype)
    path = floats(tmp_path / "own.npz", x)
    dataset = load(path, scale="standardize", val_size=val_size)
    rows = split(40, val_size)[0]
    assert dataset.x_train[rows].mean(0).abs().max() < 1e-6
    assert torch.allclose(dataset.x_train[rows].std(0, correction=0), torch.ones(3))
    fitted = x[rows.numpy()].astype(np.float64)
    expected = (x[:2] - fitted.mean(0)) / fitted.std(0)
    assert np.allclose(dataset.x_test, expected, atol=1e-6)
    digests = {load(path, scale="standardize", val_size=n).description.digest for n in (0, 5, 15)}
    assert len(digests | {load(path).description.digest}) == 4
    assert load(path, scale="standardize", val_size=val_size, batch_size=3) is dataset


@pytest.mark.parametrize("value", [0, 0.1, 1e30])
def test_a_constant_feature_is_zero_when_standardized(tmp_path, value):
    x, x_test = FLOATS.copy(), FLOATS[:2].copy()
    x[:, 1] = x_test[:, 1] = value
    train_rows, val_rows = split(40, 5)
    x[val_rows, 1] += 2
    dataset = load(floats(tmp_path / "own.npz", x, x_test), scale="standardize", val_size=5)
    assert (dataset.x_train[train_rows, 1] == 0).all() and (dataset.x_test[:, 1] == 0).all()
    assert torch.allclose(dataset.x_train[val_rows, 1], torch.tensor(2.0 if value < 1 else 0.0))


def test_a_validation_split_that_leaves_nothing_is_refused_as_ever(tmp_path):
    config = ArraysConfig(
        name="arrays",
        path=str(floats(tmp_path / "own.npz")),
        **STREAM | dict(scale="standardize", val_size=40),
    )
    [problem] = sources.check_stream(config, datasets.load(config).description)
    assert problem.startswith("data.val_size=40: leaves none of the 40 training instances")


@pytest.mark.parametrize(
    "factor, scale, said",
    [
        (1, "none", "features reach 3,629"),
        (1, "auto", "features reach 3,629"),
        (100, "255", "features reach 1,423"),
        (1e-6, "auto", "features are at most 0.00"),
        (1e-2, "auto", None),
        (1, "standardize", None),
    ],
)
def test_tables_that_need_it_are_pointed_at_standardize(tmp_path, caplog, factor, scale, said):
    load(floats(tmp_path / "own.npz", FLOATS * factor), scale=scale)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (said is not None)
    if said:
        assert said in warnings[0] and "data.scale=standardize" in warnings[0]


@pytest.mark.parametrize("name, divisor", [("digits", 16), ("mnist", 255)])
def test_every_data_set_can_be_scaled(tmp_path, monkeypatch, name, divisor):
    monkeypatch.setitem(downloads.DOWNLOADED, "mnist", tiny(("a friend", good_source)))

    def scaled(scale):
        if name == "digits":
            return datasets.load(DigitsConfig(name="digits", scale=scale, **STREAM))
        return datasets.load(DownloadedConfig(name="mnist", root=str(tmp_path), scale=scale, **STREAM))

    auto, none, by_255, standardized = map(scaled, ("auto", "none", 255, "standardize"))
    assert [d.description.scale for d in (auto, none, by_255, standardized)] == [
        *(str(divisor), "none", "255", "standardize")
    ]
    assert torch.equal(none.x_train / divisor, auto.x_train)
    assert torch.equal(none.x_test / 255, by_255.x_test)
    assert none.x_train.max() == (16 if name == "digits" else PIXELS.max())
    digests = [d.description.digest for d in (auto, none, by_255, standardized)]
    assert len(set(digests)) == (3 if divisor == 255 else 4)
    assert (digests[2] == digests[0]) == (divisor == 255)


def test_equal_runs_under_different_words_are_one_run(tmp_path):
    path = saved(tmp_path / "own.npz", with_max((28, 28), 200))
    configs = [
        run_config().model_copy(
            update={"data": ArraysConfig(name="arrays", path=str(path), scale=scale, **STREAM)}
        )
        for scale in ("auto", "255", "none")
    ]
    keys = [config.run_key(datasets.load(config.data).description.digest) for config in configs]
    assert keys[0] == keys[1] != keys[2]
