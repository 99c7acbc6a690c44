"""SGD, Adam and AdamW on all runs of a stack at once, each run with its own hyperparameters.

The rules are those of `lockstep.training.optim`, whose scalars are here a column, a number for each run.

Shapes: T steps of a stretch, R runs, P a run's parameters.
"""

import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.training.optim import Optimizer
from lockstep.training.schedule import Constant


def rule_of(config: SGDConfig | AdamConfig) -> Hashable:
    """Return what is equal for the optimizers that one BatchedUpdate steps."""
    if isinstance(config, AdamConfig):
        return config.name
    return config.has_buffer, config.nesterov


class BatchedUpdate:
    """The update of R runs by the same rule.

    Args:
        optimizers: the runs', all after the same number of steps. Their moments are moved to the rows of
            tensors.
        params_RxP, grads_RxP: whose rows are the optimizers' own.
    """

    def __init__(self, optimizers: Sequence[Optimizer], params_RxP: Tensor, grads_RxP: Tensor) -> None:
        self._optimizers, self._params_RxP, self._grads_RxP = list(optimizers), params_RxP, grads_RxP
        self._moments = [self._moved(name) for name in optimizers[0].moments]
        self._are_constant = all(isinstance(optimizer.schedule, Constant) for optimizer in optimizers)
        configs = [optimizer.config for optimizer in optimizers]
        self._decay_R = torch.tensor([config.weight_decay for config in configs], dtype=torch.float64)
        limits = [math.inf if config.clip_norm is None else config.clip_norm for config in configs]
        self._decay_Rx1, self._limit_Rx1 = self._column(self._decay_R.tolist()), self._column(limits)
        self._decays, self._clips = bool(self._decay_R.any()), min(limits) < math.inf
        adams = [config for config in configs if isinstance(config, AdamConfig)]
        sgds = [config for config in configs if isinstance(config, SGDConfig)]
        self._is_adam, self._decouples = bool(adams), configs[0].name == "adamw"
        self._is_nesterov = bool(sgds) and sgds[0].nesterov
        self._momentum_Rx1 = self._column([config.momentum for config in sgds])
        self._beta_Rx2 = torch.tensor([config.betas for config in adams], dtype=torch.float64)
        self._eps_Rx1 = self._column([config.eps for config in adams])
        if self._is_adam:
            new_Rx2 = (1 - self._beta_Rx2).to(params_RxP)
            self._new_mean_Rx1, self._new_square_Rx1 = new_Rx2[:, :1], new_Rx2[:, 1:]
            self._denominators_RxP = torch.empty_like(params_RxP)

    def _moved(self, name: str) -> Tensor:
        moments_RxP = torch.stack([getattr(optimizer, name) for optimizer in self._optimizers])
        for optimizer, moments_P in zip(self._optimizers, moments_RxP, strict=True):
            setattr(optimizer, name, moments_P)
        return moments_RxP

    def _column(self, numbers: Sequence[float]) -> Tensor:
        return self._params_RxP.new_tensor(numbers)[:, None]

    def allocate(self, n_steps: int) -> None:
        """Allocate the scalars of a stretch of at most `n_steps` steps."""
        self._scalars_TxSxRx1 = self._params_RxP.new_zeros(n_steps, 3, len(self._optimizers), 1)
        self._lr_TxR = torch.zeros(n_steps, len(self._optimizers), dtype=torch.float64)
        if self._are_constant:
            self._lr_TxR[:] = self._rates(0)

    def _rates(self, step: int) -> Tensor:
        return torch.tensor([of.schedule(step) for of in self._optimizers], dtype=torch.float64)

    def prepare(self, n_steps: int) -> None:
        """Count the next `n_steps` steps, and copy their learning rates to the device."""
        first = self._optimizers[0].steps
        lr_TxR = self._lr_TxR[:n_steps]
        if not self._are_constant:
            for step, lr_R in enumerate(lr_TxR, start=first):
                lr_R.copy_(self._rates(step))
        scalars = [lr_TxR]
        if self._is_adam:
            # Bias corrections of Kingma & Ba (2015), algorithm 1.
            done_T = torch.arange(first + 1, first + n_steps + 1, dtype=torch.float64)
            mean_TxR, square_TxR = (1 - self._beta_Rx2 ** done_T[:, None, None]).unbind(2)
            scalars = [lr_TxR / mean_TxR, square_TxR.sqrt(), 1 - lr_TxR * self._decay_R]
        for index, scalars_TxR in enumerate(scalars):
            out_TxRx1 = self._scalars_TxSxRx1[:n_steps, index]
            host_TxRx1 = scalars_TxR[:, :, None].to(out_TxRx1.dtype)
            if out_TxRx1.is_cuda:
                host_TxRx1 = host_TxRx1.pin_memory()  # the host needn't wait for the copy
            out_TxRx1.copy_(host_TxRx1, non_blocking=True)
        for optimizer in self._optimizers:
            optimizer.steps += n_steps

    def step(self, step: int) -> None:
        """Clip the gradients, then update the parameters from them, as of that step of the stretch."""
        if self._clips:
            norm_Rx1 = torch.linalg.vector_norm(self._grads_RxP, dim=1, keepdim=True)
            self._grads_RxP.mul_((self._limit_Rx1 / (norm_Rx1 + 1e-6)).clamp(max=1))
        rule = self._adam if self._is_adam else self._sgd
        rule(*self._scalars_TxSxRx1[step])

    def _sgd(self, lr_Rx1: Tensor, *_: Tensor) -> None:
        if self._decays:
            self._grads_RxP.addcmul_(self._params_RxP, self._decay_Rx1)
        direction_RxP = self._grads_RxP
        if self._moments:
            [momentum_RxP] = self._moments
            momentum_RxP.mul_(self._momentum_Rx1).add_(self._grads_RxP)
            if self._is_nesterov:
                direction_RxP.addcmul_(momentum_RxP, self._momentum_Rx1)
            else:
                direction_RxP = momentum_RxP
        self._params_RxP.addcmul_(direction_RxP, lr_Rx1, value=-1)

    def _adam(self, step_size_Rx1: Tensor, correction_Rx1: Tensor, keep_Rx1: Tensor) -> None:
        mean_RxP, square_RxP = self._moments
        if self._decays:
            if self._decouples:
                self._params_RxP.mul_(keep_Rx1)
            else:
                self._grads_RxP.addcmul_(self._params_RxP, self._decay_Rx1)
        mean_RxP.lerp_(self._grads_RxP, self._new_mean_Rx1)
        denominators_RxP = torch.mul(self._grads_RxP, self._grads_RxP, out=self._denominators_RxP)
        square_RxP.lerp_(denominators_RxP, self._new_square_Rx1)
        torch.sqrt(square_RxP, out=denominators_RxP)
        denominators_RxP.div_(correction_Rx1).add_(self._eps_Rx1)
        torch.div(mean_RxP, denominators_RxP, out=denominators_RxP)
        self._params_RxP.addcmul_(denominators_RxP, step_size_Rx1, value=-1)
