"""Learning rates against torch.optim.lr_scheduler's, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, OneCycleLR, SequentialLR

from lockstep.config.optim_config import SGDConfig
from lockstep.training import schedule

STEPS = 7  # an epoch


def sgd(kind, warmup_epochs, lr=0.3):
    return SGDConfig(
        name="sgd",
        lr=lr,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        schedule=kind,
        warmup_epochs=warmup_epochs,
    )


def rates_of_torch(make_scheduler, lr, n_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, rates = make_scheduler(optimizer), []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def reference(kind, warmup, total):
    """torch's scheduler with `warmup` of `total` iterations."""

    def make(optimizer):
        if kind == "onecycle":
            return OneCycleLR(optimizer, 0.3, total, pct_start=warmup / total, cycle_momentum=False)
        after = (
            ConstantLR(optimizer, factor=1, total_iters=1)
            if kind == "constant"
            else CosineAnnealingLR(optimizer, T_max=total - warmup)
        )
        if not warmup:
            return after
        rising = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
        return SequentialLR(optimizer, [rising, after], milestones=[warmup])

    return make


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["constant", "cosine", "onecycle"]), st.integers(1, 6), st.data())
def test_rates_equal_torchs(kind, epochs, data):
    # torch divides by zero where the warm-up is a single iteration.
    warmup = data.draw(st.sampled_from([0, *range(2, epochs * STEPS)]))
    total = epochs * STEPS
    rates = schedule.build(sgd(kind, warmup / STEPS), epochs, STEPS)
    expected = rates_of_torch(reference(kind, warmup, total), 0.3, total - 1)
    assert [rates(step) for step in range(total - 1)] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", ["constant", "cosine", "onecycle"])
def test_a_warmup_of_one_iteration_starts_at_the_full_rate(kind):
    rates = schedule.build(sgd(kind, 1 / STEPS), 2, STEPS)
    assert rates(0) == pytest.approx(0.3)
    assert all(0 <= rates(step) <= 0.3 for step in range(2 * STEPS))


def test_unsaid_only_onecycle_warms_up_and_as_torch_does_by_default():
    rates = schedule.build(sgd("onecycle", None), 10, STEPS)
    expected = rates_of_torch(lambda o: OneCycleLR(o, 0.3, 70, cycle_momentum=False), 0.3, 69)
    assert [rates(step) for step in range(69)] == pytest.approx(expected, rel=1e-10)
    for kind in ("constant", "cosine"):
        assert schedule.build(sgd(kind, None), 10, STEPS)(0) == 0.3
