"""One GEMM for all runs of a stack."""

import random

import pytest
import torch
from helpers.configs import sgd

from lockstep.training import layers
from lockstep.training.array import TrainingArray
from lockstep.training.joined import keeps_bits
from lockstep.training.networks import LogisticRegression, joint_logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_out", "n_rows"), [(2, 64), (3, 16), (5, 8), (10, 1), (10, 64), (26, 128)])
def test_a_trial_does_not_promise_what_other_numbers_break(n_out, n_rows, dtype):
    drawn = torch.Generator().manual_seed(n_out + n_rows)
    w = torch.randn(6, n_out, 800, generator=drawn, dtype=dtype)
    x = torch.rand(n_rows, 800, generator=drawn, dtype=dtype)
    grad, before = torch.randn(6, n_out, n_rows, generator=drawn, dtype=dtype), torch.randn_like(w)

    def equal(sums, a, b, beta):
        alone, joined = sums.clone(), sums.clone().view(1, -1, sums.shape[2])
        for of_run, factor in zip(alone.split(1), a.split(1), strict=True):
            torch.baddbmm(of_run, factor, b[None], beta=beta, out=of_run)
        torch.baddbmm(joined, a.reshape(1, -1, a.shape[2]), b[None], beta=beta, out=joined)
        return torch.equal(alone, joined.view_as(alone))

    found = equal(torch.zeros_like(grad), w, x.t().contiguous(), 0) and equal(before, grad, x, 0.5)
    # On Zen 4 both are alike; on Sapphire Rapids, which joins fewer, few outputs may be equal by chance.
    assert found or not keeps_bits(6, n_out, 800, n_rows, dtype)


@pytest.mark.parametrize("may_join", [True, False])
def test_runs_are_joined_where_the_bits_stay(may_join, monkeypatch):
    asked = []
    monkeypatch.setattr(layers, "keeps_bits", lambda *shape: asked.append(shape) or may_join)
    drawn = torch.Generator().manual_seed(0)
    x, y = torch.rand(300, 30, generator=drawn), torch.randint(10, (300,), generator=drawn)
    minibatches = torch.randint(300, (4, 64), generator=drawn)

    def trained(seeds, rows):
        runs = [LogisticRegression(30, 10, torch.Generator().manual_seed(seed)) for seed in seeds]
        array = TrainingArray(runs, [sgd(0.1 + seed) for seed in seeds], [torch.Generator() for _ in seeds])
        loss, _ = array.train(x, y, [minibatch[:rows] for minibatch in minibatches])
        [stack] = array._stacks
        return [(row, run.W, run.b) for row, run in zip(loss, runs, strict=True)], stack._layers[0].n_gemms

    for rows, is_aligned in (
        (64, True),
        (57, False),
    ):  # 57 * 10 floats aren't
        together, n_gemms = trained(range(5), rows)
        assert n_gemms == (1 if may_join and is_aligned else 5)
        if n_gemms == 5 or keeps_bits(5, 10, 32, rows, torch.float32):
            for seed, of_run in enumerate(together):
                [alone], _ = trained([seed], rows)
                assert all(torch.equal(a, b) for a, b in zip(of_run, alone, strict=True))
    assert asked == [(5, 10, 32, 64, torch.float32)]


def test_logits_have_the_bits_of_each_network_alone_where_a_trial_says_so():
    """Few rows too, where kernels depend on the alignment of their factors."""
    drawn, n_joined, sizes = random.Random(0), 0, (1, 2, 3, 5, 40)
    for _ in range(600):
        n_runs, n_in, n_rows = (
            drawn.randint(2, 9),
            drawn.choice((3, 17, 30, 100)),
            drawn.choice(sizes),
        )
        n_out, dtype = drawn.choice((2, 3, 5, 10, 17)), drawn.choice((torch.float32, torch.float64))
        if not keeps_bits(n_runs, n_out, n_in, n_rows, dtype):
            continue
        runs = [LogisticRegression(n_in, n_out).to(dtype) for _ in range(n_runs)]
        x = torch.randn(n_rows, n_in, dtype=dtype)
        assert torch.equal(joint_logits(runs, x), torch.stack([run(x) for run in runs]))
        n_joined += 1
    if not n_joined:
        pytest.skip("this machine's kernels keep the bits of no such shape")
