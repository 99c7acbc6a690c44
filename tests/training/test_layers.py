"""Dropout masks and blocks; forward and backward, test_array.py holds against autograd."""

import pytest
import torch
from helpers.reference import dropout_mask

from lockstep.training.layers import draw_kept, n_blocks


def test_the_workshops_layers_are_cut_in_blocks_that_divide_them():
    assert [n_blocks(n_units) for n_units in (10, 100, 128, 255, 256, 300, 512, 1000, 997)] == [
        1,
        1,
        1,
        1,
        2,
        2,
        4,
        5,
        1,
    ]


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])
def test_dropout_mask_drops_at_its_rate_in_every_lane(rate):
    mask = dropout_mask(rate, 1000, 400, torch.Generator().manual_seed(0))
    assert set(mask.unique().tolist()) == {0.0, 1 / (1 - rate)}
    # Up to eight units share one draw of 64 bits: each of the eight must drop at the rate. 50,000 units a
    # lane: a standard deviation is at most 0.0022.
    for lane in range(8):
        dropped = mask.t().reshape(-1)[lane::8] == 0
        assert dropped.double().mean().item() == pytest.approx(rate, abs=0.011)


@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_units_drawn_in_two_calls_are_those_of_one_and_follow_the_generator(rate):
    def drawn(*sizes):
        generator = torch.Generator().manual_seed(4)
        parts = [torch.empty(8 * n) for n in sizes]
        for n, part in zip(sizes, parts, strict=True):
            draw_kept(rate, generator, torch.empty(2 * n, dtype=torch.int64), part)
        return torch.cat(parts)

    assert torch.equal(drawn(30), drawn(1, 17, 12))
    assert not torch.equal(drawn(30)[:120], drawn(30)[120:])
