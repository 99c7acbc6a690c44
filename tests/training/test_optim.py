"""Our updates against torch.optim's on the same gradients, in float64."""

from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.config.schema import AdamConfig, SGDConfig
from lockstep.training import optim

rates = st.floats(1e-4, 0.5)
decays = st.sampled_from([0.0, 1e-3, 0.1])
momenta = st.sampled_from([0.0, 0.5, 0.9, 0.99])

sgds = st.builds(
    lambda lr, momentum, nesterov, weight_decay: SGDConfig(
        name="sgd", lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=weight_decay
    ),
    rates,
    momenta,
    st.booleans(),
    decays,
)
adams = st.builds(
    lambda name, lr, beta1, beta2, weight_decay: AdamConfig(
        name=name, lr=lr, betas=(beta1, beta2), eps=1e-8, weight_decay=weight_decay
    ),
    st.sampled_from(["adam", "adamw"]),
    rates,
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.9, 0.999]),
    decays,
)


def settings_of(config):
    return config.model_dump(exclude={"name", "schedule", "warmup_epochs"})


KINDS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@settings(max_examples=60, deadline=None)
@given(st.one_of(sgds, adams), st.integers(1, 40), st.integers(1, 12))
def test_steps_equal_torch_optim(config, n_params, n_steps):
    generator = torch.Generator().manual_seed(n_params)
    params_P = torch.randn(n_params, dtype=torch.float64, generator=generator)
    expected = torch.nn.Parameter(params_P.clone())
    reference = KINDS[config.name]([expected], **settings_of(config))
    rates = [config.lr / (step + 1) for step in range(n_steps)]
    with patch.object(optim, "CHUNK", 16):  # Adam takes some at a time
        optimizer = optim.build(config, params_P, rates.__getitem__)
    for step in range(n_steps):
        reference.param_groups[0]["lr"] = rates[step]
        grad_P = torch.randn(n_params, dtype=torch.float64, generator=generator)
        expected.grad = grad_P.clone()
        reference.step()
        optimizer.grad_P.mul_(optimizer.keep).add_(grad_P)  # as the backward pass does
        with patch.object(optim, "CHUNK", 16):
            optimizer.step()
    torch.testing.assert_close(params_P, expected.detach(), rtol=1e-12, atol=1e-12)
