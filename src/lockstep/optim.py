"""SGD, Adam and AdamW on one run's flat parameters, with torch.optim's semantics.

All parameters of a run lie in one contiguous vector, so a step is a handful of elementwise kernels
whatever the network's depth. (torch.optim also walks a list of parameters and allocates as it goes.)
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from lockstep.config import AdamConfig, SGDConfig


class Optimizer(Protocol):
    """Updates a run's parameters in place.

    Attributes:
        grad_P: where the backward pass leaves keep * grad_P + gradient.
        keep: so that SGD's momentum is accumulated by the backward pass's own GEMMs; 0 where there is none.
    """

    grad_P: Tensor
    keep: float

    def step(self) -> None: ...


class SGD:
    """torch.optim.SGD with momentum and weight decay (dampening 0): grad_P is the momentum itself."""

    def __init__(self, config: SGDConfig, params_P: Tensor) -> None:
        self.config, self.params_P = config, params_P
        self.grad_P = torch.zeros_like(params_P)
        self.keep = config.momentum

    def step(self) -> None:
        if self.config.weight_decay:
            self.grad_P.add_(self.params_P, alpha=self.config.weight_decay)
        self.params_P.add_(self.grad_P, alpha=-self.config.lr)


class NesterovSGD:
    """torch.optim.SGD with Nesterov momentum, whose step takes the gradient beside the momentum."""

    keep = 0.0

    def __init__(self, config: SGDConfig, params_P: Tensor) -> None:
        self.config, self.params_P = config, params_P
        self.grad_P = torch.zeros_like(params_P)
        self.momentum_P = torch.zeros_like(params_P)

    def step(self) -> None:
        config = self.config
        if config.weight_decay:
            self.grad_P.add_(self.params_P, alpha=config.weight_decay)
        self.momentum_P.mul_(config.momentum).add_(self.grad_P)
        self.grad_P.add_(self.momentum_P, alpha=config.momentum)
        self.params_P.add_(self.grad_P, alpha=-config.lr)


class Adam:
    """torch.optim.Adam (weight decay added to the gradient) and AdamW (decoupled)."""

    keep = 0.0

    def __init__(self, config: AdamConfig, params_P: Tensor) -> None:
        self.config, self.params_P = config, params_P
        self.steps = 0
        self.grad_P, self.mean_P, self.square_P, self.denominator_P = (
            torch.zeros_like(params_P) for _ in range(4)
        )

    def step(self) -> None:
        config, grad_P = self.config, self.grad_P
        beta1, beta2 = config.betas
        self.steps += 1
        if config.name == "adamw":
            self.params_P.mul_(1 - config.lr * config.weight_decay)
        elif config.weight_decay:
            grad_P.add_(self.params_P, alpha=config.weight_decay)
        self.mean_P.lerp_(grad_P, 1 - beta1)
        self.square_P.mul_(beta2).addcmul_(grad_P, grad_P, value=1 - beta2)
        # Bias corrections of Kingma & Ba (2015), algorithm 1.
        step_size = config.lr / (1 - beta1**self.steps)
        torch.sqrt(self.square_P, out=self.denominator_P)
        self.denominator_P.div_(math.sqrt(1 - beta2**self.steps)).add_(config.eps)
        self.params_P.addcdiv_(self.mean_P, self.denominator_P, value=-step_size)


def build(config: SGDConfig | AdamConfig, params_P: Tensor) -> Optimizer:
    """The optimizer that `config` describes, for `params_P`, with zeroed state."""
    if isinstance(config, AdamConfig):
        return Adam(config, params_P)
    return NesterovSGD(config, params_P) if config.nesterov else SGD(config, params_P)
