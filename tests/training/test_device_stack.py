"""Stacks of a GPU, here on the CPU's tensors: the same code but for CUDA graphs, which need one."""

import numpy as np
import pytest
import torch
from helpers.configs import MLP, run_config
from helpers.nets import CNN, module
from helpers.reference import FAMILIES, OPTIMS, C, F, N, clipped, module_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from lockstep.data import datasets
from lockstep.training.batched_update import rule_of
from lockstep.training.checkpoint import Checkpoint
from lockstep.training.device_stack import DeviceStack, draw_kept
from lockstep.training.loop import train
from lockstep.training.run import Run
from lockstep.training.schedule import Constant
from lockstep.training.stack import Stack
from lockstep.training.stretch import Stretch

U64 = (1 << 64) - 1


def splitmix(state):
    """Yield SplitMix64's outputs, by its reference implementation (Vigna, splitmix64.c)."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & U64
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & U64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
        yield z ^ (z >> 31)


def hash_of(z):
    return next(splitmix((z - 0x9E3779B97F4A7C15) & U64))


@given(st.integers(0, U64), st.integers(0, 10**6), st.integers(0, 1), st.sampled_from([0.25, 0.3]))
def test_masks_are_those_of_splitmix_from_a_hash_of_seed_iteration_and_stream(seed, start, stream, rate):
    kept_1xTxU = torch.empty(1, 3, 24)
    seeds_R = torch.tensor([seed - 2**64 if seed > U64 // 2 else seed])
    draw_kept(rate, seeds_R, start + torch.arange(3), stream, out=kept_1xTxU)
    n_bits = 8 if rate == 0.25 else 16
    for step in range(3):
        words = splitmix(hash_of((hash_of((seed + stream) & U64) + start + step) & U64))
        values = np.array([next(words) for _ in range(24 * n_bits // 64)], np.uint64)
        signed = values.view(np.int8 if n_bits == 8 else np.int16)
        expected = signed >= round(rate * 2**n_bits) - 2 ** (n_bits - 1)
        assert kept_1xTxU[0, step].tolist() == expected.tolist()


def test_masks_of_runs_iterations_and_units_are_independent():
    kept_RxTxU = torch.empty(8, 64, 4096)
    draw_kept(0.25, torch.arange(8), torch.arange(64), 0, out=kept_RxTxU)
    for axis in range(3):
        # Neighbours agree with probability 0.625.
        n = kept_RxTxU.numel() * (kept_RxTxU.shape[axis] - 1) // kept_RxTxU.shape[axis]
        agree = (kept_RxTxU.diff(dim=axis) == 0).sum().item()
        assert (agree - 0.625 * n) ** 2 / (0.625 * 0.375 * n) < chi2.ppf(1 - 1e-6, 1)
    n_kept = kept_RxTxU.sum().item()
    assert (n_kept - 0.75 * kept_RxTxU.numel()) ** 2 / (0.1875 * kept_RxTxU.numel()) < chi2.ppf(1 - 1e-6, 1)


class Halving:
    """A learning rate that changes."""

    def __init__(self, lr):
        self._lr = lr

    def __call__(self, step):
        return self._lr / (1 + step)


WEIGHTS_C = torch.arange(1, C + 1, dtype=torch.float64)


def runs_of(families, optims, changing, device="cpu", smoothing=None):
    made = []
    for seed, (family, optim) in enumerate(zip(families, optims, strict=True)):
        schedule = Halving(optim.lr) if changing else Constant(optim.lr)
        drawn = torch.Generator().manual_seed(seed)
        loss = () if smoothing is None else (smoothing, WEIGHTS_C.to(device))
        made.append(Run(module_of(family, seed).to(device), optim, drawn, schedule, *loss))
    return made


def without_dropout(family):
    return family if family == "logreg" else (family[0], 0.0, family[2], *family[3:4])


def trained(kind, families, optims, changing, device="cpu", smoothing=None):
    """The losses of three stretches of a stack, its runs' states, and the stack."""
    generator = torch.Generator().manual_seed(0)
    x_NxF = torch.randn(N, F, dtype=torch.float64, generator=generator).to(device)
    y_N = torch.randint(C, (N,), generator=generator).to(device)
    runs = runs_of(families, optims, changing, device, smoothing)
    stack, stretch = kind(runs, torch.float64), Stretch(24, C, x_NxF)
    losses = []
    for start in (0, 72, 144):  # the second stretch goes on from the first
        stretch.gather(x_NxF, y_N, torch.arange(start, start + 72, device=device).view(3, 24))
        losses.append(stack.train(stretch)[0])
    return torch.cat(losses, dim=1).cpu(), [run.state() for run in runs], (stack, x_NxF, y_N)


def assert_close(found, expected):
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    for state, of_expected in zip(found[1], expected[1], strict=True):
        for name in state.keys() - {"dropout"}:
            torch.testing.assert_close(state[name], of_expected[name], rtol=1e-8, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(FAMILIES)),
    st.sampled_from(sorted(OPTIMS)),
    st.booleans(),
    st.lists(st.tuples(st.floats(0.01, 0.3), st.sampled_from([None, 0.05])), min_size=1, max_size=4),
    st.sampled_from([None, 0.0, 0.1]),
)
def test_runs_of_other_hyperparameters_are_those_of_a_cpu_stack(
    family, optim, changing, given_runs, smoothing
):
    optims = [clipped(OPTIMS[optim], norm).model_copy(update={"lr": lr}) for lr, norm in given_runs]
    optims = [config for config in optims if rule_of(config) == rule_of(optims[0])]
    families = [without_dropout(FAMILIES[family])] * len(optims)
    found = trained(DeviceStack, families, optims, changing, smoothing=smoothing)
    assert_close(found, trained(Stack, families, optims, changing, smoothing=smoothing))
    stack, x_NxF, y_N = found[2]
    for run, loss, counts_Cx2 in zip(stack.runs, *stack.evaluate(x_NxF, y_N), strict=True):
        logits_NxC = run.network(x_NxF)
        assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits_NxC, y_N).item())
        prediction_N = logits_NxC.argmax(1)
        of_classes = [(prediction_N == c, (prediction_N == c) & (y_N == c)) for c in range(C)]
        expected = [[(all_N & ~right_N).sum().item(), right_N.sum().item()] for all_N, right_N in of_classes]
        assert counts_Cx2.tolist() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("smoothing", [None, 0.1])
@pytest.mark.parametrize("optim", sorted(OPTIMS))
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_gpu_draws_and_computes_the_same_and_its_graphs_too(family, optim, smoothing):
    optims = [clipped(OPTIMS[optim], norm) for norm in (0.5, 2.0, 9.0)]
    families = [FAMILIES[family]] * 3
    on_gpu, again = (
        trained(DeviceStack, families, optims, changing=True, device="cuda", smoothing=smoothing)
        for _ in range(2)
    )
    assert_close(on_gpu, trained(DeviceStack, families, optims, changing=True, smoothing=smoothing))
    assert torch.equal(on_gpu[0], again[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("model", [MLP, CNN, module("perceptron", dropout=0.3)])
def test_runs_of_a_gpu_resume_amid_an_epoch_with_the_same_bits(model):
    dataset = datasets.load(run_config().data)
    configs = [run_config(model, optim, seed) for seed in range(2) for optim in OPTIMS.values()]
    configs = [
        config.model_copy(update={"trainer": config.trainer.model_copy(update={"device": "cuda"})})
        for config in configs
    ]
    expected = train(configs, dataset)
    paused = train(configs, dataset, pause_at=13)
    checkpoints = [Checkpoint(run.history, run.state(), run.best) for run in paused]
    for run, of_expected in zip(train(configs, dataset, checkpoints=checkpoints), expected, strict=True):
        assert run.history.loss_T.tobytes() == of_expected.history.loss_T.tobytes()
        tensors = run.network.state_dict(), of_expected.network.state_dict()
        assert [name for name in tensors[0] if not torch.equal(tensors[0][name], tensors[1][name])] == []


def test_a_dropped_unit_takes_no_part():
    [run] = runs_of([FAMILIES["mlp"]], [OPTIMS["sgd"]], changing=False)
    w_OxI = run.network.output.weight.clone()
    x_NxF, y_N = torch.ones(N, F, dtype=torch.float64), torch.zeros(N, dtype=torch.int64)
    stack, stretch = DeviceStack([run], torch.float64), Stretch(1, C, x_NxF)
    stretch.gather(x_NxF, y_N, torch.tensor([[0]]))
    stack.train(stretch)
    changed_I = (run.network.output.weight != w_OxI).any(0)
    kept_1x1xU = torch.empty(1, 1, 32)
    draw_kept(0.25, torch.tensor([0]), torch.tensor([0]), 0, out=kept_1x1xU)
    assert not changed_I[kept_1x1xU[0, 0, 16:23] == 0].any()
    assert changed_I.any()
