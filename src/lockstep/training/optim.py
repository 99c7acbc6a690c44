"""SGD, Adam and AdamW on one run's flat parameters, with torch.optim's semantics.

All parameters of a run lie in one contiguous vector, so a step is a few elementwise kernels for a network of
any depth. (torch.optim loops over a list of parameters and allocates.)
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.training.schedule import Schedule

CHUNK = 2**16
"""Parameters that Adam updates at a time. With gradients and moments they take 1.3 MB in float32, and stay in
a core's level-2 cache from one kernel to the next: 1.9 million parameters take 6.7 ms per step, not 9.3."""

NORM_CHUNK = 2**15 - 16
"""Gradients whose norm is taken at a time on the CPU: too few for torch to share among threads, which it does
with sums of 2**15 numbers or more. The norm of 1.9 million in float32 is off by 1e-7, and at once by 3e-5."""


class Optimizer(ABC):
    """An optimizer that updates a run's parameters in place.

    Attributes:
        params_P: the parameters.
        grad_P: the buffer that the backward pass sets to keep * grad_P + gradient.
        keep: SGD's momentum, so that the backward pass's GEMMs accumulate it; 0 for other optimizers.
        moments: the names of the attributes that hold other vectors.
        steps: the number of steps taken.
    """

    config: SGDConfig | AdamConfig
    keep = 0.0
    moments: tuple[str, ...] = ()

    def __init__(self, config: SGDConfig | AdamConfig, params_P: Tensor, schedule: Schedule) -> None:
        self.params_P, self.grad_P = params_P, torch.zeros_like(params_P)
        self.config, self.schedule, self.steps = config, schedule, 0

    def step(self) -> None:
        """Clip `grad_P`, then update the parameters from it, at the scheduled learning rate."""
        lr = self.schedule(self.steps)
        self.steps += 1
        if self.config.clip_norm is not None:
            self._clip(self.config.clip_norm)
        self._update(lr)

    def _clip(self, limit: float) -> None:
        """Scale the gradient to an L2 norm <= `limit`, as torch.nn.utils.clip_grad_norm_ does."""
        chunk = NORM_CHUNK if self.grad_P.device.type == "cpu" else len(self.grad_P)
        norms = [torch.linalg.vector_norm(grad_C) for grad_C in torch.split(self.grad_P, chunk)]
        norm = torch.linalg.vector_norm(torch.stack(norms))  # stays on the device: no synchronisation
        self.grad_P.mul_((limit / (norm + 1e-6)).clamp(max=1))

    @abstractmethod
    def _update(self, lr: float) -> None: ...

    def move_to(self, params_P: Tensor, grad_P: Tensor) -> None:
        """Continue with parameters that were moved to `params_P`; copy the gradients to `grad_P`."""
        self.params_P, self.grad_P = params_P, grad_P.copy_(self.grad_P)

    def state(self) -> dict[str, Tensor]:
        """Return the state to resume from, beside the parameters: the tensors themselves, not copies."""
        return {"grad": self.grad_P, "steps": torch.tensor(self.steps)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state that `state` returned into this optimizer."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.steps = int(state["steps"])


class SGD(Optimizer):
    """torch.optim.SGD with momentum and weight decay (dampening 0); grad_P holds the momentum."""

    config: SGDConfig

    def __init__(self, config: SGDConfig, params_P: Tensor, schedule: Schedule) -> None:
        super().__init__(config, params_P, schedule)
        self.keep = config.momentum

    def _update(self, lr: float) -> None:
        if self.config.weight_decay:
            self.grad_P.add_(self.params_P, alpha=self.config.weight_decay)
        self.params_P.add_(self.grad_P, alpha=-lr)


class BufferedSGD(Optimizer):
    """torch.optim.SGD whose step needs both gradient and momentum: Nesterov's, or a clipped gradient."""

    config: SGDConfig
    moments = ("momentum_P",)

    def __init__(self, config: SGDConfig, params_P: Tensor, schedule: Schedule) -> None:
        super().__init__(config, params_P, schedule)
        self.momentum_P = torch.zeros_like(params_P)

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "momentum": self.momentum_P}

    def _update(self, lr: float) -> None:
        config = self.config
        if config.weight_decay:
            self.grad_P.add_(self.params_P, alpha=config.weight_decay)
        direction_P = self.momentum_P.mul_(config.momentum).add_(self.grad_P)
        if config.nesterov:
            direction_P = self.grad_P.add_(self.momentum_P, alpha=config.momentum)
        self.params_P.add_(direction_P, alpha=-lr)


class Adam(Optimizer):
    """torch.optim.Adam (weight decay added to the gradient) and AdamW (decoupled)."""

    config: AdamConfig
    moments = ("mean_P", "square_P")

    def __init__(self, config: AdamConfig, params_P: Tensor, schedule: Schedule) -> None:
        super().__init__(config, params_P, schedule)
        self.mean_P, self.square_P = torch.zeros_like(params_P), torch.zeros_like(params_P)
        self._denominator_C = params_P.new_empty(min(CHUNK, len(params_P)))

    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "mean": self.mean_P, "square": self.square_P}

    def _update(self, lr: float) -> None:
        vectors = (self.params_P, self.grad_P, self.mean_P, self.square_P)
        for chunks in zip(*(torch.split(vector_P, CHUNK) for vector_P in vectors), strict=True):
            self._update_chunk(lr, *chunks)

    def _update_chunk(
        self, lr: float, params_C: Tensor, grad_C: Tensor, mean_C: Tensor, square_C: Tensor
    ) -> None:
        config, denominator_C = self.config, self._denominator_C[: len(params_C)]
        beta1, beta2 = config.betas
        if config.name == "adamw":
            params_C.mul_(1 - lr * config.weight_decay)
        elif config.weight_decay:
            grad_C.add_(params_C, alpha=config.weight_decay)
        mean_C.lerp_(grad_C, 1 - beta1)
        square_C.mul_(beta2).addcmul_(grad_C, grad_C, value=1 - beta2)
        # Bias corrections of Kingma & Ba (2015), algorithm 1.
        step_size = lr / (1 - beta1**self.steps)
        torch.sqrt(square_C, out=denominator_C)
        denominator_C.div_(math.sqrt(1 - beta2**self.steps)).add_(config.eps)
        params_C.addcdiv_(mean_C, denominator_C, value=-step_size)


def build(config: SGDConfig | AdamConfig, params_P: Tensor, schedule: Schedule) -> Optimizer:
    """Return the optimizer that `config` describes, for `params_P`, with zeroed state."""
    if isinstance(config, AdamConfig):
        return Adam(config, params_P, schedule)
    return (BufferedSGD if config.has_buffer else SGD)(config, params_P, schedule)
