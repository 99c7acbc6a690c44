"""The training array: K runs that take every step together, on the same minibatches.

Forward, backward and update are written out for the one shape all our networks have: linear layers, an
elementwise activation and dropout between them, softmax cross-entropy at the end. tests/test_array.py holds
them against the nn.Modules trained by autograd and torch.optim in float64.

What makes a step quick, measured on the workshop's perceptron: weights stored I x O, the orientation that
GEMM likes best at these shapes; gradients accumulated by GEMM right into the momentum; dropout's scale left
to GEMM's alpha; masks drawn, and losses and accuracies worked out, for many steps at once; no allocation.

Shapes: T steps, B minibatch, N instances, F features, C classes, H units of a hidden layer, I and O a
layer's inputs and outputs, P a run's parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from lockstep import optim
from lockstep.config import AdamConfig, SGDConfig
from lockstep.models import LogisticRegression, MultilayerPerceptron

INSTANCES_AT_ONCE = 2048
"""Masks are drawn, and losses worked out, together for as many steps as take so many instances: 32 of the
workshop's minibatches. More gains nothing and takes memory."""

EVALUATION_ROWS = 4096
"""Rows per forward pass in evaluation; keeps the activations of wide networks small."""


def _relu_backward(grad: Tensor, h: Tensor, kept: Tensor | None) -> None:
    torch.ops.aten.threshold_backward.grad_input(grad, h, 0, grad_input=grad)


def _sigmoid_backward(grad: Tensor, h: Tensor, kept: Tensor | None) -> None:
    torch.ops.aten.sigmoid_backward.grad_input(grad, h, grad_input=grad)


def _tanh_backward(grad: Tensor, h: Tensor, kept: Tensor | None) -> None:
    torch.ops.aten.tanh_backward.grad_input(grad, h, grad_input=grad)
    if kept is not None:  # the others' derivative is 0 where the output is, as a dropped unit's; tanh's is 1
        grad.mul_(kept)


# The activation in place, and its backward in place: d loss/d output becomes d loss/d input, given the
# output after dropout and which units dropout kept.
_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Callable[..., None]]] = {
    nn.ReLU: (torch.relu_, _relu_backward),
    nn.Sigmoid: (torch.sigmoid_, _sigmoid_backward),
    nn.Tanh: (torch.tanh_, _tanh_backward),
}


def draw_kept(rate: float, generator: torch.Generator, bits: Tensor, out: Tensor) -> Tensor:
    """Which units dropout keeps: 1 or 0 each, into `out`, four for each int64 of the scratch vector `bits`.

    torch.nn.Dropout takes no generator, hence our own draw: 16 random bits a unit, so `rate` holds to the
    nearest 1/65536. Units drawn in two calls are the same as in one.
    """
    bits.random_(-(2**63), None, generator=generator)
    return torch.ge(bits.view(torch.int16), round(rate * 65536) - 32768, out=out)


def steps_at_once(n_rows: int) -> int:
    """How many steps on minibatches of `n_rows` instances are prepared and measured together."""
    return max(1, INSTANCES_AT_ONCE // n_rows)


def _up_to_multiple_of_4(n: int) -> int:
    return -(-n // 4) * 4


class _Layer:
    """A linear layer of one run: views of its parameters and gradients, and buffers for a minibatch."""

    def __init__(self, params: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor], alpha: float) -> None:
        self.w_IxO, self.b_O = params
        self.grad_w_IxO, self.grad_b_O = grads
        self.w_OxI = self.w_IxO.t()
        self.alpha = alpha  # dropout's 1 / (1 - rate) of the inputs; 1 where nothing was dropped

    def allocate(self, n_rows: int) -> None:
        self.out_BxO = self.w_IxO.new_empty(n_rows, len(self.b_O))
        self.grad_BxO = torch.empty_like(self.out_BxO)
        self.ones_B = self.w_IxO.new_ones(n_rows)

    def accumulate(self, in_BxI: Tensor, keep: float) -> None:
        """The parameters' gradients, on top of `keep` times what stands there."""
        self.grad_w_IxO.addmm_(in_BxI.t(), self.grad_BxO, beta=keep, alpha=self.alpha)
        self.grad_b_O.addmv_(self.grad_BxO.t(), self.ones_B, beta=keep)

    def backward(self, grad_BxI: Tensor) -> None:
        """d loss/d input, before dropout, into `grad_BxI`."""
        torch.addmm(grad_BxI, self.grad_BxO, self.w_OxI, beta=0, alpha=self.alpha, out=grad_BxI)


class _Run:
    """One run of the array: its module's parameters laid out flat, its optimizer, its dropout stream."""

    def __init__(
        self,
        module: LogisticRegression | MultilayerPerceptron,
        optim_config: SGDConfig | AdamConfig,
        dropout_generator: torch.Generator,
    ) -> None:
        self.module, self.generator = module, dropout_generator
        if isinstance(module, LogisticRegression):
            stored = [(module.W, module.W.data, module.b)]
            self.rate = 0.0
        else:
            linear = [*module.hidden, module.output]
            stored = [(layer.weight, layer.weight.data.t(), layer.bias) for layer in linear]
            self.rate = module.dropout.p
            self.activate_, self.activation_backward_ = _ACTIVATIONS[type(module.activation)]
        self.params_P = torch.cat([t.reshape(-1) for _, w_IxO, b in stored for t in (w_IxO, b.data)])
        self.optimizer = optim.build(optim_config, self.params_P)

        self.layers: list[_Layer] = []
        start = 0
        for weight, w_IxO, bias in stored:
            middle = start + w_IxO.numel()
            stop = middle + bias.numel()
            params, grads = (
                (flat[start:middle].view(w_IxO.shape), flat[middle:stop])
                for flat in (self.params_P, self.optimizer.grad_P)
            )
            self.layers.append(_Layer(params, grads, alpha=1 / (1 - self.rate) if self.layers else 1.0))
            # The module reads the array's own storage; nn.Linear, which is O x I, through a transposed view.
            weight.data = params[0] if isinstance(module, LogisticRegression) else params[0].t()
            bias.data = params[1]
            start = stop
        self.n_rows = 0

    def prepare(self, n_steps: int, n_rows: int) -> None:
        """Draw the masks of the next minibatches, up to `steps_at_once(n_rows)` of `n_rows` instances."""
        if n_rows != self.n_rows:
            self._allocate(n_rows)
        if self.rate:
            n_units = n_steps * self.units_per_step
            drawn = self.drawn[:n_units]
            draw_kept(self.rate, self.generator, self.bits[: n_units // 4], out=drawn)
            if self.drawn is not self.kept:
                self.kept[:n_units].copy_(drawn)

    def _allocate(self, n_rows: int) -> None:
        self.n_rows = n_rows
        for layer in self.layers:
            layer.allocate(n_rows)
        n_steps = steps_at_once(n_rows)
        self.logits_TxBxC = self.params_P.new_empty(n_steps, n_rows, len(self.layers[-1].b_O))
        self.kept_TxL: list[list[Tensor | None]] = [[None] * len(self.layers) for _ in range(n_steps)]
        if not self.rate:
            return
        # A step's draws: the units of each hidden layer in turn, rounded up to whole int64s.
        shapes = [(n_rows, len(layer.b_O)) for layer in self.layers[:-1]]
        sizes = [_up_to_multiple_of_4(rows * units) for rows, units in shapes]
        self.units_per_step = sum(sizes)
        self.kept = self.params_P.new_empty(n_steps * self.units_per_step)
        self.bits = torch.empty(len(self.kept) // 4, dtype=torch.int64)
        self.drawn = (
            self.kept if self.kept.device.type == "cpu" else torch.empty_like(self.kept, device="cpu")
        )
        for step, of_step in enumerate(torch.split(self.kept, self.units_per_step)):
            for index, (flat, shape) in enumerate(zip(torch.split(of_step, sizes), shapes, strict=True)):
                self.kept_TxL[step][index] = flat[: shape[0] * shape[1]].view(shape)

    def step(self, step: int, x_BxF: Tensor, target_BxC: Tensor) -> None:
        """Forward, backward and update; `target_BxC` is -1 / B at each instance's class, 0 elsewhere."""
        kept_L = self.kept_TxL[step]
        *hidden, last = self.layers
        h = x_BxF
        for layer, kept in zip(hidden, kept_L, strict=False):
            torch.addmm(layer.b_O, h, layer.w_IxO, alpha=layer.alpha, out=layer.out_BxO)
            h = self.activate_(layer.out_BxO)
            if kept is not None:
                h.mul_(kept)
        logits_BxC = self.logits_TxBxC[step]
        torch.addmm(last.b_O, h, last.w_IxO, alpha=last.alpha, out=logits_BxC)

        # d loss/d logits = (softmax - one-hot) / B.
        torch.softmax(logits_BxC, dim=1, out=last.grad_BxO)
        torch.add(target_BxC, last.grad_BxO, alpha=1 / len(x_BxF), out=last.grad_BxO)
        for index in range(len(hidden), 0, -1):
            layer, below = self.layers[index], self.layers[index - 1]
            layer.accumulate(below.out_BxO, self.optimizer.keep)
            layer.backward(below.grad_BxO)
            self.activation_backward_(below.grad_BxO, below.out_BxO, kept_L[index - 1])
        self.layers[0].accumulate(x_BxF, self.optimizer.keep)
        self.optimizer.step()

    def measured(self, y_TxB: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and accuracy, T each, of the steps since `prepare`."""
        n_steps, n_rows = y_TxB.shape
        logits_NxC = self.logits_TxBxC[:n_steps].flatten(0, 1)
        loss_N = nn.functional.cross_entropy(logits_NxC, y_TxB.flatten(), reduction="none")
        correct_N = logits_NxC.argmax(dim=1) == y_TxB.flatten()
        loss_T, accuracy_T = (of_N.view(n_steps, n_rows).double().mean(dim=1) for of_N in (loss_N, correct_N))
        return loss_T, accuracy_T


class TrainingArray:
    """K runs stepped together. The modules' parameters are views of the array's storage: always current.

    A run's kernels have the shapes they would have alone, so its numbers are those it would have alone,
    bit for bit; what the runs share is the minibatch.

    Args:
        modules: K networks on one device, of one dtype; widths, depth and family may differ.
        optim_configs: K optimizers' hyperparameters.
        dropout_generators: K generators on the CPU, one run's dropout masks each.
    """

    def __init__(
        self,
        modules: Sequence[LogisticRegression | MultilayerPerceptron],
        optim_configs: Sequence[SGDConfig | AdamConfig],
        dropout_generators: Sequence[torch.Generator],
    ) -> None:
        self._runs = [
            _Run(module, config, generator)
            for module, config, generator in zip(modules, optim_configs, dropout_generators, strict=True)
        ]

    @torch.no_grad()
    def train(self, x_NxF: Tensor, y_N: Tensor, minibatches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """A step of every run on each minibatch in turn: forward, backward, update.

        Args:
            x_NxF, y_N: the data set, on the runs' device and of their dtype.
            minibatches: T index tensors into it, int64, on that device.

        Returns:
            loss_KxT: mean cross-entropy of each minibatch before its update, dropout active; float64.
            accuracy_KxT: likewise.
        """
        n_classes = len(self._runs[0].layers[-1].b_O)
        measured: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self._runs]
        for indices_TxB in _equal_stretches(minibatches):
            n_steps, n_rows = indices_TxB.shape
            x_BxF = x_NxF.new_empty(n_rows, x_NxF.shape[1])
            target_BxC = x_NxF.new_empty(n_rows, n_classes)
            target_CxC = torch.eye(n_classes, dtype=x_NxF.dtype, device=x_NxF.device) / -n_rows
            y_TxB = y_N[indices_TxB]
            for run in self._runs:
                run.prepare(n_steps, n_rows)
            for step in range(n_steps):
                torch.index_select(x_NxF, 0, indices_TxB[step], out=x_BxF)
                torch.index_select(target_CxC, 0, y_TxB[step], out=target_BxC)
                for run in self._runs:
                    run.step(step, x_BxF, target_BxC)
            for of_run, run in zip(measured, self._runs, strict=True):
                of_run.append(run.measured(y_TxB))
        loss_KxT, accuracy_KxT = (
            torch.stack([torch.cat([pair[which] for pair in of_run]) for of_run in measured])
            for which in (0, 1)
        )
        return loss_KxT, accuracy_KxT

    @torch.no_grad()
    def evaluate(self, x_NxF: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and accuracy of every run over N instances, in evaluation mode.

        Returns:
            loss_K and accuracy_K, float64.
        """
        losses, accuracies = [], []
        for run in self._runs:
            module = run.module.eval()
            logits_NxC = torch.cat([module(x) for x in torch.split(x_NxF, EVALUATION_ROWS)])
            losses.append(nn.functional.cross_entropy(logits_NxC, y_N).double())
            accuracies.append((logits_NxC.argmax(dim=1) == y_N).double().mean())
        return torch.stack(losses), torch.stack(accuracies)

    def remove(self, k: int) -> None:
        """Take run k out; the runs after it move up by one."""
        del self._runs[k]


def _equal_stretches(minibatches: Sequence[Tensor]) -> Iterator[Tensor]:
    """Consecutive minibatches of one size, as many as are taken at once, stacked, T x B."""
    for n_rows, equal in groupby(minibatches, key=len):
        alike, n_steps = list(equal), steps_at_once(n_rows)
        for start in range(0, len(alike), n_steps):
            yield torch.stack(alike[start : start + n_steps])
