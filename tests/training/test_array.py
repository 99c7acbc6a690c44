"""The training array against the nn.Modules trained by autograd and torch.optim, in float64."""

import copy
import warnings
from itertools import product

import pytest
import torch
from helpers.reference import FAMILIES, OPTIMS, C, F, N, clipped, dropout_mask, module_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import nn

from lockstep.data.used_features import used_features
from lockstep.training import array as array_module
from lockstep.training.array import TrainingArray
from lockstep.training.layers import n_blocks
from lockstep.training.networks import MultilayerPerceptron
from lockstep.training.stack import Stack
from lockstep.training.stretch import steps_at_once


class SeededDropout(nn.Module):
    """nn.Dropout with the array's draws: it takes no generator itself."""

    def __init__(self, rate, generator):
        super().__init__()
        self.rate, self.generator = rate, generator

    def forward(self, h):
        if not self.training or self.rate == 0:
            return h
        return h * dropout_mask(self.rate, *h.shape, self.generator)


def torch_optimizer(config, module):
    settings = config.model_dump(exclude={"name", "schedule", "warmup_epochs", "clip_norm"})
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    return kind(module.parameters(), **settings)


class Reference:
    """The same run by autograd and torch.optim. `norms` are its gradients' before they are clipped."""

    def __init__(self, module, config, dropout_seed, label_smoothing=0.0, class_weights_C=None):
        self.module = copy.deepcopy(module).train()
        if isinstance(module, MultilayerPerceptron):
            generator = torch.Generator().manual_seed(dropout_seed)
            self.module.dropout = SeededDropout(module.dropout.p, generator)
            self.module.input_dropout = SeededDropout(module.input_dropout.p, generator)
        self.optimizer = torch_optimizer(config, self.module)
        self.clip_norm, self.norms = config.clip_norm, []
        self.loss = nn.CrossEntropyLoss(class_weights_C, label_smoothing=label_smoothing)

    def step(self, x, y):
        self.module.train()
        logits = self.module(x)
        loss = self.loss(logits, y)
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_norm)
            self.norms.append(norm.item())
        self.optimizer.step()
        if getattr(self.module, "max_norm", None):
            for layer in self.module.hidden:
                layer.weight.data = torch.renorm(layer.weight.data, 2, 0, self.module.max_norm)
        return loss.item(), (logits.argmax(1) == y).sum().item()


@pytest.fixture(scope="module")
def problem():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(N, F, generator=generator, dtype=torch.float64)
    y = torch.randint(0, C, (N,), generator=generator)
    return x, y


def balanced_accuracy(y, logits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of predicted classes that no instance has
        return balanced_accuracy_score(y, logits.argmax(1))


def assert_equal(module, reference, tolerance=1e-10):
    for given_p, expected_p in zip(module.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(given_p.detach(), expected_p.detach(), rtol=0, atol=tolerance)


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Networks small enough to be stacked, or large ones, whose layers are cut into blocks."""
    if request.param == "large":
        monkeypatch.setattr("lockstep.training.run.STACK_BYTES", 1)
        monkeypatch.setattr("lockstep.training.layers.BLOCK_UNITS", 3)
        assert [n_blocks(n_units) for n_units in (2, 3, 6, 7, 8, 9)] == [1, 1, 2, 1, 2, 3]


BLANK = [0, 4, 5, 11]
DECAYING = [optim for optim, config in OPTIMS.items() if config.weight_decay]


@pytest.mark.parametrize(
    ("family", "optim", "blank"),
    [*product(FAMILIES, OPTIMS, [[]]), *product(FAMILIES, DECAYING, [BLANK])],
)
def test_a_step_and_an_epoch_equal_autograd_and_torch_optim(problem, family, optim, blank, size, monkeypatch):
    x, y = (tensor.clone() for tensor in problem)
    x[:, blank] = 0
    used = used_features(x) if blank else None
    monkeypatch.setattr("lockstep.training.stretch.INSTANCES_AT_ONCE", 70)
    module = module_of(FAMILIES[family], seed=2)
    reference = Reference(module, OPTIMS[optim], dropout_seed=7)
    array = TrainingArray([module], [OPTIMS[optim]], [torch.Generator().manual_seed(7)], used=used)
    # More steps than are taken at once, and a last minibatch that is smaller.
    minibatches = list(torch.arange(N).split(7))
    assert len(minibatches) > steps_at_once(7) == 10
    assert len(minibatches[-1]) < 7
    for part in (minibatches[:1], minibatches[1:]):
        loss_1xT, accuracy_1xT = array.train(x, y, part)
        expected = [reference.step(x[rows], y[rows]) for rows in part]
        assert loss_1xT[0].tolist() == pytest.approx([loss for loss, _ in expected], rel=0, abs=1e-10)
        assert accuracy_1xT[0].tolist() == pytest.approx(
            [n_correct / len(rows) for (_, n_correct), rows in zip(expected, part, strict=True)], abs=1e-15
        )
        assert_equal(module, reference)
    y[y == 0] = 1  # a class without instances
    scores, logits = array.evaluate(x, y), reference.module.eval()(x)
    assert scores.loss_K.item() == pytest.approx(nn.functional.cross_entropy(logits, y).item(), abs=1e-10)
    assert scores.accuracy_K.item() == (logits.argmax(1) == y).double().mean().item()
    assert scores.balanced_accuracy_K.tolist() == [pytest.approx(balanced_accuracy(y, logits), rel=1e-14)]
    expected = f1_score(y, logits.argmax(1), average="macro")
    assert scores.f1_macro_K.tolist() == [pytest.approx(expected, rel=1e-14)]


@pytest.mark.parametrize(
    ("smoothing", "clip_norm", "is_weighted"),
    [(0.1, None, False), (0.0, 0.3, False), (0.4, 0.3, True), (0.0, None, True)],
)
@pytest.mark.parametrize("optim", OPTIMS)
def test_steps_of_other_losses_equal_torchs(
    problem, optim, smoothing, clip_norm, is_weighted, size, monkeypatch
):
    x, y = problem
    monkeypatch.setattr("lockstep.training.optim.NORM_CHUNK", 16)
    families, smoothings = ["logreg", "mlp", "mlp"], [smoothing, smoothing, smoothing / 2]
    config = clipped(OPTIMS[optim], clip_norm)
    modules = [module_of(FAMILIES[family], seed) for seed, family in enumerate(families)]
    weights = [torch.arange(1, C + 1, dtype=torch.float64) if is_weighted else None] * 3
    references = [
        Reference(module, config, seed, *of_run)
        for seed, (module, *of_run) in enumerate(zip(modules, smoothings, weights, strict=True))
    ]
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    losses = {"label_smoothings": smoothings, "class_weights": weights}
    array = TrainingArray(modules, [config] * 3, generators, **losses)
    minibatches = [*torch.arange(N).split(37), torch.arange(0, N, 11)]
    loss_KxT, _ = array.train(x, y, minibatches)
    for module, reference, loss_T in zip(modules, references, loss_KxT, strict=True):
        losses = [reference.step(x[rows], y[rows])[0] for rows in minibatches]
        assert loss_T.tolist() == pytest.approx(losses, rel=0, abs=1e-12)
        assert_equal(module, reference, tolerance=1e-12)
    if clip_norm is not None:  # some gradients were clipped, and some not
        norms = [norm for reference in references for norm in reference.norms]
        assert min(norms) < clip_norm < max(norms)
    # What is measured on held-out instances is the plain cross-entropy.
    loss_K = array.evaluate(x, y).loss_K
    plain = [nn.functional.cross_entropy(reference.module.eval()(x), y).item() for reference in references]
    assert loss_K.tolist() == pytest.approx(plain, rel=0, abs=1e-12)


def test_max_norm_holds_weights_back(problem):
    x, y = problem
    free, held = module_of(((9, 6), 0.1, "gelu"), 1), module_of(FAMILIES["mlp-max-norm"], 1)
    for module in (free, held):
        array = TrainingArray([module], [OPTIMS["sgd-momentum"]], [torch.Generator().manual_seed(0)])
        array.train(x, y, [torch.arange(100)] * 20)
    norms = [[layer.weight.norm(dim=1).max().item() for layer in module.hidden] for module in (free, held)]
    assert min(norms[0]) > 0.65
    assert max(norms[1]) <= 0.6


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(FAMILIES)), st.sampled_from(list(OPTIMS)), st.integers(0, 99)),
        min_size=1,
        max_size=5,
    )
)
def test_any_mix_of_runs_equals_each_run_alone(runs):
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(64, F, generator=generator, dtype=torch.float64)
    y = torch.randint(0, C, (64,), generator=generator)
    modules = [module_of(FAMILIES[family], seed) for family, _, seed in runs]
    references = [
        Reference(module, OPTIMS[optim], seed) for module, (_, optim, seed) in zip(modules, runs, strict=True)
    ]
    array = TrainingArray(
        modules,
        [OPTIMS[optim] for _, optim, _ in runs],
        [torch.Generator().manual_seed(seed) for _, _, seed in runs],
    )
    array.train(x, y, [torch.arange(64)] * 3)
    for reference in references:
        for _ in range(3):
            reference.step(x, y)
    for module, reference in zip(modules, references, strict=True):
        assert_equal(module, reference)


@pytest.mark.parametrize("family", ["logreg", "mlp"])
def test_bfloat16_gemms_round_to_8_bits_and_leave_float32_weights(problem, family, size):
    x, y = problem
    x, modules = x.float(), [module_of(FAMILIES[family], 3).float() for _ in range(3)]
    loss = {}
    for module, dtype in zip(modules, (torch.float32, torch.bfloat16, torch.float64), strict=True):
        module = module.double() if dtype == torch.float64 else module
        generator = torch.Generator().manual_seed(5)
        array = TrainingArray([module], [OPTIMS["sgd-decay"]], [generator], matmul_dtype=dtype)
        loss[dtype] = array.train(x.to(dtype), y, [torch.arange(50)] * 20)[0][0]
    exact, rough = loss[torch.float64], loss[torch.bfloat16]
    assert (loss[torch.float32] - exact).abs().max() < 1e-5
    # A unit in the last place of bfloat16 is 2 ** -8 of a value; 20 steps add up to a few of them.
    assert 1e-5 < (rough - exact).abs().max() < 0.03
    assert {p.dtype for p in modules[1].parameters()} == {torch.float32}
    assert rough[-1] < rough[0]


def test_runs_that_are_taken_out_stop_and_the_others_go_on(problem):
    x, y = problem
    modules = [
        module_of(family, seed) for family in ("logreg", FAMILIES["mlp"], "logreg") for seed in range(3)
    ]
    references = [Reference(module, OPTIMS["sgd"], 0) for module in modules]
    array = TrainingArray(modules, [OPTIMS["sgd"]] * 9, [torch.Generator().manual_seed(0) for _ in modules])
    array.train(x, y, [torch.arange(N)])
    for reference in references:
        reference.step(x, y)
    array.remove(6, 1, 3, 4, 5)  # of a stack of six four are left, of one of three none
    loss_Kx1, _ = array.train(x, y, [torch.arange(N)])
    losses = [references[k].step(x, y)[0] for k in (0, 2, 7, 8)]
    assert loss_Kx1[:, 0].tolist() == pytest.approx(losses, abs=1e-12)
    for module, reference in zip(modules, references, strict=True):
        assert_equal(module, reference)


def test_a_nan_in_one_run_leaves_the_others_unchanged(problem):
    x, y = problem
    healthy, sick = module_of("logreg", 0), module_of("logreg", 1)
    alone = Reference(healthy, OPTIMS["sgd-momentum"], 0)
    with torch.no_grad():
        sick.W.fill_(float("nan"))
    array = TrainingArray([sick, healthy], [OPTIMS["sgd-momentum"]] * 2, [torch.Generator()] * 2)
    loss_Kx3, _ = array.train(x, y, [torch.arange(N)] * 3)
    assert loss_Kx3[0].isnan().all()
    assert loss_Kx3[1].tolist() == pytest.approx([alone.step(x, y)[0] for _ in range(3)], abs=1e-12)
    assert_equal(healthy, alone)


def test_a_runs_share_of_the_time_is_that_of_its_stack_divided_by_its_runs(problem, monkeypatch):
    clock, train = [0.0], Stack.train

    def timed(stack, stretch):
        clock[0] += 6.0 if len(stack.runs) == 2 else 2.0  # two perceptrons, or the logistic regression
        return train(stack, stretch)

    monkeypatch.setattr(array_module.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(Stack, "train", timed)
    modules = [module_of(family, 0) for family in (FAMILIES["mlp"], "logreg", FAMILIES["mlp"])]
    array = TrainingArray(modules, [OPTIMS["sgd"]] * 3, [torch.Generator() for _ in modules])
    for _ in range(2):  # of the last training
        array.train(*problem, list(torch.arange(N).split(1)))
        assert array.share_K == pytest.approx([3 / 8, 2 / 8, 3 / 8])
    array.remove(0)
    array.train(*problem, [torch.arange(N)])
    assert array.share_K == pytest.approx([1 / 2, 1 / 2])


@pytest.mark.parametrize(("shared_takes", "alone_takes", "chosen"), [(1.0, 1.6, 4), (5.0, 1.6, 1)])
def test_threads_share_the_steps_of_an_epoch_where_that_was_quicker(
    monkeypatch, shared_takes, alone_takes, chosen
):
    class Shared:
        def __init__(self):
            self.threads = []

        def share(self, threads):
            self.threads.append(threads)

    # The first stretch allocates, whoever computes it.
    starts = iter([0.0, 9.0, 9.0 + shared_takes, 9.0 + shared_takes + alone_takes])
    monkeypatch.setattr(array_module.time, "perf_counter", lambda: next(starts))
    stack = Shared()
    sharing = array_module._Sharing([stack], threads=4)
    for _ in range(6):
        sharing.next_stretch()
    assert stack.threads == [4, 4, 1, chosen]
