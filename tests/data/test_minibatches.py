"""The validation split, and the order of training instances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lockstep.data.minibatches import Minibatches, split


@given(n=st.integers(1, 200), share=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 9))
def test_split(n, share, seed):
    val_size = int(n * share)
    torch.manual_seed(seed)
    before = torch.get_rng_state()
    train, val = split(n, val_size)
    assert torch.equal(torch.get_rng_state(), before)
    assert train.dtype == val.dtype == torch.int64
    assert len(val) == val_size
    assert sorted(train.tolist() + val.tolist()) == list(range(n))
    again = split(n, val_size)
    assert torch.equal(train, again[0]) and torch.equal(val, again[1])
    assert set(split(n, val_size // 2)[1].tolist()) <= set(val.tolist())


def test_split_draws_from_everywhere():
    train, val = split(1000, 0)
    assert train.tolist() == list(range(1000)) and val.tolist() == []
    _, val = split(1000, 500)
    assert 200 < (val < 500).sum() < 300
    with pytest.raises(ValueError, match="val_size=1000: allowed: 0 to 999"):
        split(1000, 1000)


def minibatches(n, batch_size, drop_last, seed):
    rows = torch.arange(n) * 3 + 1
    return Minibatches(rows, batch_size, drop_last, torch.Generator().manual_seed(seed))


@given(n=st.integers(1, 100), data_=st.data(), drop_last=st.booleans(), seed=st.integers(0, 2**63 - 1))
def test_minibatches(n, data_, drop_last, seed):
    batch_size = data_.draw(st.integers(1, n), label="batch_size")
    stream, twin = minibatches(n, batch_size, drop_last, seed), minibatches(n, batch_size, drop_last, seed)
    assert stream.steps == (n // batch_size if drop_last else -(-n // batch_size))
    for _ in range(3):
        before = torch.get_rng_state()
        epoch = list(stream.epoch())
        assert torch.equal(torch.get_rng_state(), before)
        assert len(epoch) == stream.steps
        assert all(rows.dtype == torch.int64 for rows in epoch)
        assert all(len(rows) == batch_size for rows in (epoch if drop_last else epoch[:-1]))
        drawn = torch.cat(epoch).tolist()
        assert len(drawn) == (n - n % batch_size if drop_last else n)
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= set(range(1, 3 * n, 3))
        assert torch.cat(list(twin.epoch())).tolist() == drawn


def test_minibatches_are_shuffled_anew():
    stream = minibatches(100, 10, False, seed=0)
    first, second = (torch.cat(list(stream.epoch())).tolist() for _ in range(2))
    other = torch.cat(list(minibatches(100, 10, False, seed=1).epoch())).tolist()
    in_order = list(range(1, 300, 3))
    assert first != second and first != other
    assert in_order not in (first, second, other)
    assert sorted(first) == sorted(second) == sorted(other) == in_order


@pytest.mark.parametrize("batch_size", [0, 11])
def test_minibatches_of_an_impossible_size(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: allowed: 1 to 10"):
        minibatches(10, batch_size, True, 0)
