"""Which runs are stacked, and how their parameters lie; test_array.py holds their numbers."""

import pytest
import torch
from helpers.reference import OPTIMS, clipped, module_of

from lockstep.training.array import TrainingArray
from lockstep.training.run import Run
from lockstep.training.schedule import Constant
from lockstep.training.stack import Stack
from lockstep.training.stretch import ALIGNMENT, Stretch, steps_at_once

SMALL = ((9, 7), 0.25, "relu")


def test_large_minibatches_are_taken_one_at_a_time():
    assert [steps_at_once(n_rows) for n_rows in (1, 64, 100, 2048, 60000)] == [1024, 16, 10, 1, 1]


def array_of(runs, exact=False):
    networks = [module_of(family, seed) for seed, (family, _) in enumerate(runs)]
    optims = [OPTIMS[optim] for _, optim in runs]
    return TrainingArray(networks, optims, [torch.Generator() for _ in runs], exact)


def test_runs_are_stacked_that_agree_in_shapes_and_in_their_kernels_scalars():
    runs = [
        *((SMALL, "sgd"), ("logreg", "sgd"), (SMALL, "sgd-momentum"), (SMALL, "sgd"), (SMALL, "adam")),
        *((((9, 8), 0.25, "relu"), "sgd"), (((9, 7), 0.5, "relu"), "sgd"), (((9, 7), 0.25, "tanh"), "sgd")),
    ]
    array = array_of(runs)
    # Adam keeps nothing of the last gradient, as SGD without momentum.
    assert [[array._runs.index(run) for run in stack.runs] for stack in array._stacks] == [
        [0, 3, 4], [1], [2], [5], [6], [7],
    ]  # fmt: skip
    assert [len(stack.runs) for stack in array_of(runs, exact=True)._stacks] == [1] * 8


def test_runs_with_other_smoothing_or_clipping_are_stacked_where_their_kernels_are_the_same():
    # Clipping needs the gradient apart from the momentum, as Adam does.
    optims = [OPTIMS["sgd-momentum"], clipped(OPTIMS["sgd-momentum"], 1.0), OPTIMS["adam"]] * 2
    networks = [module_of(SMALL, seed) for seed in range(6)]
    smoothings = [0.0, 0.1, 0.2, 0.3, 0.0, 0.0]
    array = TrainingArray(networks, optims, [torch.Generator()] * 6, label_smoothings=smoothings)
    assert [[array._runs.index(run) for run in stack.runs] for stack in array._stacks] == [
        [0], [1, 2], [3], [4, 5],
    ]  # fmt: skip


def test_a_stack_holds_as_many_runs_as_its_bytes_allow(monkeypatch):
    run = Run(module_of("logreg", 0), OPTIMS["sgd"], torch.Generator(), Constant(0.1))
    monkeypatch.setattr("lockstep.training.run.STACK_BYTES", 3 * 2 * run.params_P.nbytes)
    assert [len(stack.runs) for stack in array_of([("logreg", "sgd")] * 7)._stacks] == [3, 3, 1]


@pytest.mark.parametrize("family", ["logreg", SMALL])
def test_a_networks_parameters_are_views_of_its_stack_and_every_row_is_aligned(family):
    networks = [module_of(family, seed) for seed in range(3)]
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    runs = [Run(network, OPTIMS["sgd"], torch.Generator(), Constant(0.1)) for network in networks]
    Stack(runs, torch.float64)
    for run, network, values in zip(runs, networks, before, strict=True):
        assert all(torch.equal(p, v) for p, v in zip(network.parameters(), values, strict=True))
        rows = [w_OxJ.stride(0) for w_OxJ in run.matrices(run.params_P)]
        assert len(rows) == (1 if family == "logreg" else 3)
        assert all(row % ALIGNMENT == 0 for row in rows)
        run.params_P.zero_()
        assert not any(p.any() for p in network.parameters())


def test_a_stretch_gathers_instances_a_constant_feature_and_targets():
    x, y = torch.arange(30.0).view(10, 3), torch.arange(10) % 4
    stretch = Stretch(n_rows=2, n_classes=4, x_NxF=x)
    rows = torch.tensor([[7, 0], [1, 9], [4, 4]])
    stretch.gather(x, y, rows)
    assert stretch.n_steps == 3
    assert torch.equal(stretch.x_TxBxJ[:3, :, :3], x[rows])
    assert torch.equal(stretch.x_TxBxJ[:3, :, 3], torch.ones(3, 2))
    assert not stretch.x_TxBxJ[:3, :, 4:].any()
    assert torch.equal(stretch.target_TxCxB[0], torch.tensor([[0, -0.5], [0, 0], [0, 0], [-0.5, 0]]))
