"""Our updates against torch.optim's on the same gradients, in float64."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.training import optim

rates = st.floats(1e-4, 0.5)
decays = st.sampled_from([0.0, 1e-3, 0.1])
momenta = st.sampled_from([0.0, 0.5, 0.9, 0.99])
clip_norms = st.sampled_from([None, 0.01, 2.0, 1e6])

sgds = st.builds(
    lambda lr, momentum, nesterov, weight_decay, clip_norm: SGDConfig(
        **{"name": "sgd", "lr": lr, "momentum": momentum, "nesterov": nesterov and momentum > 0},
        **{"weight_decay": weight_decay, "clip_norm": clip_norm},
    ),
    rates,
    momenta,
    st.booleans(),
    decays,
    clip_norms,
)
adams = st.builds(
    lambda name, lr, beta1, beta2, weight_decay, clip_norm: AdamConfig(
        **{"name": name, "lr": lr, "betas": (beta1, beta2), "eps": 1e-8},
        **{"weight_decay": weight_decay, "clip_norm": clip_norm},
    ),
    st.sampled_from(["adam", "adamw"]),
    rates,
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.9, 0.999]),
    decays,
    clip_norms,
)


def settings_of(config):
    return config.model_dump(exclude={"name", "schedule", "warmup_epochs", "clip_norm"})


KINDS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@settings(max_examples=60, deadline=None)
@given(st.one_of(sgds, adams), st.integers(1, 40), st.integers(1, 12))
def test_steps_equal_torch_optim(config, n_params, n_steps):
    generator = torch.Generator().manual_seed(n_params)
    params_P = torch.randn(n_params, dtype=torch.float64, generator=generator)
    expected = torch.nn.Parameter(params_P.clone())
    reference = KINDS[config.name]([expected], **settings_of(config))
    rates = [config.lr / (step + 1) for step in range(n_steps)]
    with patch.object(optim, "CHUNK", 16):  # Adam takes some at a time, as norms do
        optimizer = optim.build(config, params_P, rates.__getitem__)
    for step in range(n_steps):
        reference.param_groups[0]["lr"] = rates[step]
        grad_P = torch.randn(n_params, dtype=torch.float64, generator=generator)
        expected.grad = grad_P.clone()
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([expected], config.clip_norm)
        reference.step()
        optimizer.grad_P.mul_(optimizer.keep).add_(grad_P)  # as the backward pass does
        with patch.object(optim, "CHUNK", 16), patch.object(optim, "NORM_CHUNK", 16):
            optimizer.step()
    torch.testing.assert_close(params_P, expected.detach(), rtol=1e-12, atol=1e-12)


def test_a_large_gradient_is_clipped_as_exactly_as_a_small_one():
    params_P = torch.zeros(2**20)
    config = SGDConfig(name="sgd", lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=3.0)
    optimizer = optim.build(config, params_P, lambda step: 1.0)
    optimizer.grad_P.normal_(generator=torch.Generator().manual_seed(0))
    optimizer.step()
    assert params_P.double().norm().item() == pytest.approx(3.0, rel=1e-6)
