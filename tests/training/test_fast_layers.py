"""Dropout and max-pooling that are fast, against torch's."""

import pytest
import torch
from torch import nn

from lockstep.training.fast_layers import Dropout, MaxPool2d, use


@pytest.mark.parametrize("shape", [(3, 4, 6, 8), (2, 3, 7, 5), (1, 1, 2, 2), (3, 9, 9), (5, 2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pooling_gives_torchs_values_and_gradients_also_of_equal_pixels(shape, dtype):
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(-2, 3, shape, generator=generator).to(dtype)  # most are equal to others
        results = []
        for layer in (nn.MaxPool2d(2), use(nn.MaxPool2d(2))):
            leaf = x.clone().requires_grad_()
            pooled = layer(leaf)
            pooled.backward(torch.randn(pooled.shape, generator=generator.manual_seed(9), dtype=dtype))
            assert torch.equal(leaf, x)
            results.append((pooled, leaf.grad))
        assert type(layer) is MaxPool2d
        (wanted, wanted_grad), (pooled, grad) = results
        assert torch.equal(pooled, wanted)
        assert torch.equal(grad, wanted_grad)


@pytest.mark.parametrize(
    ("layer", "is_fast"),
    [
        (nn.MaxPool2d(2), True),
        (nn.MaxPool2d((2, 2), stride=2), True),
        (nn.MaxPool2d(3), False),
        (nn.MaxPool2d(2, stride=1), False),
        (nn.MaxPool2d(2, padding=1), False),
        (nn.MaxPool2d(2, ceil_mode=True), False),
        (nn.MaxPool2d(2, return_indices=True), False),
        (nn.Dropout(0.3), True),
        (nn.Dropout(0.3, inplace=True), False),
        (nn.Dropout2d(0.3), False),
    ],
)
def test_only_exactly_these_layers_are_replaced(layer, is_fast):
    [found] = use(nn.Sequential(layer))
    assert (type(found) in (Dropout, MaxPool2d)) == is_fast
    assert found is layer


@pytest.mark.parametrize("rate", [0.25, 0.3, 0.5])
def test_dropout_keeps_its_share_scaled_and_draws_from_torchs_generator(rate):
    layer, x = use(nn.Dropout(rate)), torch.ones(300, 1001, requires_grad=True)
    torch.manual_seed(0)
    out = layer(x)
    kept = out != 0
    assert kept.double().mean().item() == pytest.approx(
        1 - rate, abs=5 * (rate * (1 - rate) / x.numel()) ** 0.5
    )
    assert torch.equal(out[kept], torch.ones(1).div(1 - rate).expand(int(kept.sum())))
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    torch.manual_seed(0)
    assert torch.equal(layer(x), out)
    assert not torch.equal(layer(x), out)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_dropout_of_nothing_or_all(rate):
    x = torch.ones(3, 5)
    assert torch.equal(use(nn.Dropout(rate))(x), x * (1 - rate))
