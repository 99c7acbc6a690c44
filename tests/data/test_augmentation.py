"""Random shifts and flips, held against padding, cropping and mirroring one image after the other."""

import numpy as np
import pytest
import torch
from helpers.data_files import save
from helpers.reference import variant_of

from lockstep.config.data_config import ArraysConfig, AugmentConfig, DigitsConfig
from lockstep.data import datasets, sources
from lockstep.data.augmentation import Augmentation
from lockstep.data.description import DataDescription
from lockstep.data.images import as_input
from lockstep.data.minibatches import Minibatches

N = 6
ZERO = torch.zeros(1, 1)
STREAM = dict(batch_size=2, drop_last=True, val_size=0, shuffle_seed=0)


def described(shape):
    return DataDescription("arrays", "0" * 32, shape, ("0", "1"), N, 2, "a test")


def augmentation(shift, flip, data, x_blank=ZERO, seed=0):
    config = AugmentConfig(shift=shift, flip=flip)
    return Augmentation(config, data, x_blank, torch.Generator().manual_seed(seed))


def gathered(of, x_NxF, indices):
    """What a stretch gathers: rows that are longer than an instance."""
    buffer = x_NxF.new_full((len(indices), x_NxF.shape[1] + 5), 7)
    of.gather(x_NxF, indices, buffer[:, :-5])
    assert (buffer[:, -5:] == 7).all()
    return buffer[:, :-5]


@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 6), (4, 6, 1), (5, 6, 4)])
@pytest.mark.parametrize(("shift", "flip"), [(1, False), (3, True), (0, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_variant_of_every_instance_equals_one_variant_of(shape, shift, flip, dtype):
    data = described(shape)
    x_NxF = torch.rand(N, data.n_features, generator=torch.Generator().manual_seed(0)).to(dtype)
    n_variants = (2 * shift + 1) ** 2 * (2 if flip else 1)
    indices = torch.randperm(N * n_variants, generator=torch.Generator().manual_seed(1))
    of = augmentation(shift, flip, data, ZERO.to(dtype))
    found = as_input(gathered(of, x_NxF, indices), data)
    for index, image in zip(indices.tolist(), found, strict=True):
        expected = variant_of(as_input(x_NxF, data)[index % N], index // N, shift, flip)
        assert torch.equal(image, expected)


def test_the_variants_are_all_shifts_and_flips_equally_often():
    data = described((4, 6))
    of, indices = augmentation(1, True, data), torch.arange(N).repeat(600)
    before = torch.get_rng_state()
    drawn = of.draw(indices)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn % N, indices)
    counts = (drawn // N).bincount()
    assert len(counts) == 18 and counts.min() > 150 and counts.max() < 250  # 3600 / 18 = 200
    assert not torch.equal(of.draw(indices), drawn)
    assert torch.equal(augmentation(1, True, data).draw(indices), drawn)


def minibatches(of):
    return Minibatches(torch.arange(N), 2, True, torch.Generator().manual_seed(3), of)


def test_minibatches_hold_variants_in_the_same_order_and_skip_their_draws():
    data = described((4, 6))
    stream, plain = minibatches(augmentation(2, True, data)), minibatches(None)
    epochs = [torch.cat(stream.epoch()) for _ in range(3)]
    for epoch in epochs:
        assert torch.equal(epoch % N, torch.cat(plain.epoch())) and (epoch >= N).any()
    resumed = minibatches(augmentation(2, True, data))
    resumed.skip(2)
    assert torch.equal(torch.cat(resumed.epoch()), epochs[2])
    assert not torch.equal(epochs[0] // N, epochs[1] // N)


def standardized(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (N, 4, 6), np.uint8)
    x[2], x[:, 1, 1], x[0, 2, 2] = 0, 9, 0  # a blank image, but for a pixel that is constant
    path = save(tmp_path / "own.npz", x_train=x, y_train=np.arange(N) % 2, x_test=x[:2])
    config = ArraysConfig(name="arrays", path=str(path), scale="standardize", **STREAM)
    return datasets.load(config), x


def test_blank_pixels_stay_blank_where_features_are_standardized(tmp_path):
    dataset, x = standardized(tmp_path)
    values = x.reshape(N, -1).astype(np.float64)
    values[:, values.std(0) == 0] = 0  # a constant is its own blank
    spread = np.where(values.std(0) == 0, 1, values.std(0))
    assert np.allclose(dataset.x_blank, -values.mean(0) / spread, atol=1e-6)
    of = augmentation(2, True, dataset.description, dataset.x_blank)
    indices = torch.arange(50) * N + torch.arange(50) % N
    found = gathered(of, dataset.x_train, indices)
    ink = as_input(torch.from_numpy(values / spread), dataset.description)
    expected = [variant_of(ink[index % N], index // N, 2, True).flatten() for index in indices.tolist()]
    assert np.allclose(found, dataset.x_blank + torch.stack(expected), atol=1e-5)
    assert torch.equal(found[2::6], dataset.x_blank.expand(8, -1))


@pytest.mark.parametrize("scale", ["auto", "none", "255"])
def test_zero_is_blank_where_features_are_divided(scale):
    assert not datasets.load(DigitsConfig(name="digits", scale=scale, **STREAM)).x_blank.any()


NO_IMAGE = "only for images (H x W, or 3-D with 1, 3 or 4 channels); an instance of arrays has the shape"
FAR = "allowed: 0 to 2, a quarter of the shorter side of an image of arrays"


@pytest.mark.parametrize(
    ("shape", "settings", "problems"),
    [
        ((13, 11), dict(shift=2, flip=True), []),
        ((3, 11, 13), dict(shift=2), []),
        ((13, 11, 3), dict(shift=2), []),
        ((13,), dict(), []),
        ((13,), dict(flip=True), [f"data.augment.flip=true: {NO_IMAGE} (13,)"]),
        ((5, 8, 6), dict(shift=1, flip=True), [f"data.augment.shift=1: {NO_IMAGE} (5, 8, 6)"]),
        ((11, 13), dict(shift=3), [f"data.augment.shift=3: {FAR}"]),
        ((13, 11, 3), dict(shift=3), [f"data.augment.shift=3: {FAR}"]),
    ],
)
def test_what_cannot_be_augmented_is_refused(shape, settings, problems):
    config = DigitsConfig(name="digits", augment=AugmentConfig(**settings), **STREAM)
    assert sources.check_stream(config, described(shape)) == problems
