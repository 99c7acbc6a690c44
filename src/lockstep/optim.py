"""SGD, Adam and AdamW on one run's flat parameters, with torch.optim's semantics and order of operations.

All parameters of a run lie in one contiguous vector, so a step is a handful of elementwise kernels
whatever the network's depth. (torch.optim also walks a list of parameters and allocates as it goes.)
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from lockstep.config import AdamConfig, SGDConfig


class Optimizer(Protocol):
    """Updates `params_P` in place from their gradient, which it may overwrite."""

    def step(self, params_P: Tensor, grad_P: Tensor) -> None: ...


class SGD:
    """torch.optim.SGD with momentum, Nesterov momentum and weight decay (dampening 0)."""

    def __init__(self, config: SGDConfig, params_P: Tensor) -> None:
        self.config = config
        self.momentum_P = torch.zeros_like(params_P) if config.momentum else None

    def step(self, params_P: Tensor, grad_P: Tensor) -> None:
        config = self.config
        if config.weight_decay:
            grad_P.add_(params_P, alpha=config.weight_decay)
        if self.momentum_P is None:
            params_P.add_(grad_P, alpha=-config.lr)
            return
        self.momentum_P.mul_(config.momentum).add_(grad_P)
        if config.nesterov:
            params_P.add_(grad_P.add_(self.momentum_P, alpha=config.momentum), alpha=-config.lr)
        else:
            params_P.add_(self.momentum_P, alpha=-config.lr)


class Adam:
    """torch.optim.Adam (weight decay added to the gradient) and AdamW (decoupled)."""

    def __init__(self, config: AdamConfig, params_P: Tensor) -> None:
        self.config = config
        self.steps = 0
        self.mean_P = torch.zeros_like(params_P)
        self.square_P = torch.zeros_like(params_P)

    def step(self, params_P: Tensor, grad_P: Tensor) -> None:
        config = self.config
        beta1, beta2 = config.betas
        self.steps += 1
        if config.name == "adamw":
            params_P.mul_(1 - config.lr * config.weight_decay)
        elif config.weight_decay:
            grad_P.add_(params_P, alpha=config.weight_decay)
        self.mean_P.lerp_(grad_P, 1 - beta1)
        self.square_P.mul_(beta2).addcmul_(grad_P, grad_P, value=1 - beta2)
        # Bias corrections of Kingma & Ba (2015), algorithm 1.
        step_size = config.lr / (1 - beta1**self.steps)
        denominator_P = self.square_P.sqrt().div_(math.sqrt(1 - beta2**self.steps)).add_(config.eps)
        params_P.addcdiv_(self.mean_P, denominator_P, value=-step_size)


def build(config: SGDConfig | AdamConfig, params_P: Tensor) -> Optimizer:
    """The optimizer that `config` describes, with zeroed state for `params_P`."""
    return SGD(config, params_P) if isinstance(config, SGDConfig) else Adam(config, params_P)
