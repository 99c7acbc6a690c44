"""The training array: K runs that take every step together, on the same minibatches.

Forward, backward and update are written out for the one shape all our networks have: linear layers, an
elementwise activation and dropout between them, softmax cross-entropy at the end. tests/test_array.py holds
them against the nn.Modules trained by autograd and torch.optim in float64.

Shapes: B minibatch, F features, C classes, I and O a layer's inputs and outputs, P a run's parameters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lockstep import optim
from lockstep.config import AdamConfig, SGDConfig
from lockstep.models import LogisticRegression, MultilayerPerceptron

_BACKWARD: dict[type[nn.Module], Callable[[Tensor, Tensor], Tensor]] = {
    # d loss/d input of the activation, from d loss/d output and the output: autograd's own kernels.
    nn.ReLU: lambda grad, h: torch.ops.aten.threshold_backward(grad, h, 0),
    nn.Tanh: torch.ops.aten.tanh_backward,
    nn.Sigmoid: torch.ops.aten.sigmoid_backward,
}

EVALUATION_ROWS = 4096
"""Rows per forward pass in evaluation; keeps the activations of wide networks small."""


def dropout_mask(rate: float, n_rows: int, n_units: int, generator: torch.Generator) -> Tensor:
    """B x H float32 on the CPU: 0 for dropped units, 1 / (1 - rate) for kept ones.

    torch.nn.Dropout takes no generator, hence our own draw: 16 random bits a unit, four units to each int64,
    so `rate` holds to the nearest 1/65536.
    """
    n = n_rows * n_units
    bits = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    kept = bits.view(torch.int16)[:n] >= round(rate * 65536) - 32768
    return kept.to(torch.float32).mul_(1 / (1 - rate)).view(n_rows, n_units)


@dataclass(frozen=True)
class _Layer:
    w_OxI: Tensor
    b_O: Tensor
    grad_w_OxI: Tensor
    grad_b_O: Tensor


class _Run:
    """One run of the array: its module's parameters laid out flat, its optimizer, its dropout stream."""

    def __init__(
        self,
        module: LogisticRegression | MultilayerPerceptron,
        optim_config: SGDConfig | AdamConfig,
        dropout_generator: torch.Generator,
    ) -> None:
        self.module = module
        self.params_P = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
        self.grad_P = torch.zeros_like(self.params_P)
        self.optimizer = optim.build(optim_config, self.params_P)
        self.dropout_generator = dropout_generator

        views = []
        start = 0
        for p in module.parameters():
            span = slice(start, start + p.numel())
            p.data = self.params_P[span].view_as(p)  # the module reads the array's own storage
            views.append((p.data, self.grad_P[span].view_as(p)))
            start = span.stop
        if isinstance(module, LogisticRegression):  # stores W as I x O
            (w, grad_w), (b, grad_b) = views
            self.layers = [_Layer(w.t(), b, grad_w.t(), grad_b)]
            self.dropout, self.activate = 0.0, nn.Identity()  # no hidden layer uses them
        else:
            pairs = zip(views[::2], views[1::2], strict=True)
            self.layers = [_Layer(w, b, grad_w, grad_b) for (w, grad_w), (b, grad_b) in pairs]
            self.dropout, self.activate = module.dropout.p, module.activation

    def step(self, x_BxF: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        # Forward: what each layer received, what its activation gave, what dropout let through.
        received, activated, masks = [x_BxF], [], []
        for layer in self.layers[:-1]:
            h_BxO = self.activate(torch.addmm(layer.b_O, received[-1], layer.w_OxI.t()))
            activated.append(h_BxO)
            if self.dropout:
                mask_BxO = dropout_mask(self.dropout, len(x_BxF), h_BxO.shape[1], self.dropout_generator).to(
                    h_BxO
                )
                masks.append(mask_BxO)
                h_BxO = h_BxO * mask_BxO
            received.append(h_BxO)
        last = self.layers[-1]
        log_probs_BxC = torch.log_softmax(torch.addmm(last.b_O, received[-1], last.w_OxI.t()), dim=1)
        y_Bx1 = y_B.unsqueeze(1)
        loss = log_probs_BxC.gather(1, y_Bx1).mean().neg_()
        n_correct = (log_probs_BxC.argmax(dim=1) == y_B).sum()

        # Backward. Softmax cross-entropy: d loss/d logits = (softmax - one-hot) / B.
        grad_BxO = log_probs_BxC.exp_()
        grad_BxO.scatter_add_(1, y_Bx1, grad_BxO.new_full((1, 1), -1.0).expand_as(y_Bx1))
        grad_BxO.div_(len(y_B))
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            torch.mm(grad_BxO.t(), received[index], out=layer.grad_w_OxI)
            torch.sum(grad_BxO, dim=0, out=layer.grad_b_O)
            if index:
                grad_BxO = grad_BxO @ layer.w_OxI
                if self.dropout:
                    grad_BxO.mul_(masks[index - 1])
                grad_BxO = _BACKWARD[type(self.activate)](grad_BxO, activated[index - 1])
        self.optimizer.step(self.params_P, self.grad_P)
        return loss, n_correct


class TrainingArray:
    """K runs stepped together. The modules' parameters are views of the array's storage: always current.

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
    def step(self, x_BxF: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        """One minibatch: forward, backward, update, for every run.

        Returns:
            loss_K: mean cross-entropy of the minibatch before the update, dropout active.
            n_correct_K: instances classified correctly, likewise.
        """
        losses, counts = zip(*(run.step(x_BxF, y_B) for run in self._runs), strict=True)
        return torch.stack(losses), torch.stack(counts)

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
            losses.append(torch.nn.functional.cross_entropy(logits_NxC, y_N).double())
            accuracies.append((logits_NxC.argmax(dim=1) == y_N).double().mean())
        return torch.stack(losses), torch.stack(accuracies)

    def remove(self, k: int) -> None:
        """Take run k out; the runs after it move up by one."""
        del self._runs[k]
