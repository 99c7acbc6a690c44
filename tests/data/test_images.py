"""What is an image, and the shape in which a network sees it."""

import logging

import numpy as np
import pytest
import torch
from helpers.data_files import save

from lockstep.config.data_config import ArraysConfig
from lockstep.data import datasets
from lockstep.data.description import DataDescription, has_channels_last, is_image
from lockstep.data.images import as_input

STREAM = dict(batch_size=2, drop_last=True, val_size=0, shuffle_seed=0)
RNG = np.random.default_rng(0)


def described(shape):
    return DataDescription("arrays", "0" * 32, shape, ("0", "1"), 2, 2, "a test")


@pytest.mark.parametrize(
    ("shape", "seen", "image", "channels_last"),
    [
        ((28, 28), (1, 28, 28), True, False),
        ((3, 32, 32), (3, 32, 32), True, False),
        ((32, 30, 3), (3, 32, 30), True, True),
        ((32, 30, 4), (4, 32, 30), True, True),
        ((28, 26, 1), (1, 28, 26), True, True),
        ((1, 28, 3), (1, 28, 3), True, False),
        ((3, 28, 1), (3, 28, 1), True, False),
        ((4, 5, 3), (4, 5, 3), True, False),
        ((12, 32, 30), (12, 32, 30), False, False),
        ((8, 3, 2), (8, 3, 2), False, False),
        ((13,), (13,), False, False),
        ((5, 3, 8, 8), (5, 3, 8, 8), False, False),
    ],
)
def test_input_shape(shape, seen, image, channels_last):
    assert described(shape).input_shape == seen
    assert (is_image(shape), has_channels_last(shape)) == (image, channels_last)
    x_NxF = torch.arange(2 * np.prod(shape)).reshape(2, -1).float()
    instances = x_NxF.reshape(2, *shape)
    expected = instances.permute(0, 3, 1, 2) if channels_last else instances.reshape(2, *seen)
    assert torch.equal(as_input(x_NxF, described(shape)), expected)
    # A stretch has two leading axes, and rows that are longer than an instance.
    x_TxBxJ = torch.nn.functional.pad(x_NxF, (0, 5), value=torch.nan).reshape(1, 2, -1)
    of_stretch = as_input(x_TxBxJ[:, :, : x_NxF.shape[1]], described(shape))
    assert torch.equal(of_stretch, expected[None]) and of_stretch.is_contiguous()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_of_images_are_the_same_to_a_network_wherever_their_channels_are(tmp_path, caplog, channels):
    caplog.set_level(logging.INFO, "lockstep")
    last = RNG.integers(0, 256, (4, 8, 9, channels), np.uint8)
    seen = []
    for name, x in (("last", last), ("first", last.transpose(0, 3, 1, 2))):
        path = save(tmp_path / f"{name}.npz", x_train=x, x_test=x[:2])
        dataset = datasets.load(ArraysConfig(name="arrays", path=str(path), **STREAM))
        # Flat instances keep the file's order, as they always did: stored runs have their numbers from it.
        assert np.array_equal(dataset.x_train, x.reshape(4, -1) / np.float32(255))
        assert dataset.description.feature_shape == x.shape[1:]
        seen.append(as_input(dataset.x_train, dataset.description))
        taken = ", images are taken as N x H x W x C" if name == "last" else ""
        assert caplog.messages[-1] == (
            f"{path}: features are divided by 255 (data.scale=auto){taken}; classes: 0, 1, 2"
        )
    assert torch.equal(seen[0], seen[1]) and seen[0].shape == (4, channels, 8, 9)
