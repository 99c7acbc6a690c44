"""Learning rate schedules over a run's iterations, equal to torch.optim.lr_scheduler's."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from lockstep.config.optim_config import AdamConfig, SGDConfig

Schedule = Callable[[int], float]
"""From the number of updates done, 0 before the first, to the next update's learning rate."""

WARMUP_SHARE = 0.3
"""onecycle's default share of iterations with a rising learning rate: OneCycleLR's pct_start."""

DIV_FACTOR, FINAL_DIV_FACTOR = 25, 1e4
"""OneCycleLR's defaults: greatest over first learning rate, and first over last."""


def build(config: SGDConfig | AdamConfig, epochs: int, steps_per_epoch: int) -> Schedule:
    """Return the schedule of a run.

    With S iterations in all, W of warm-up, t done, and lr the greatest rate, `config.lr`:
    - constant, cosine: lr (t + 1) / W while t < W (LinearLR from 1 / W); then lr, or CosineAnnealingLR's
      lr (1 + cos(pi (t - W) / (S - W))) / 2.
    - onecycle: OneCycleLR with cycle_momentum=False, whose pct_start is W / S.
    """
    lr, total = config.lr, epochs * steps_per_epoch
    warmup = (config.warmup_epochs or 0) * steps_per_epoch
    if config.schedule == "onecycle":
        return _onecycle(lr, WARMUP_SHARE * total if config.warmup_epochs is None else warmup, total)
    steps = round(warmup)
    after = Constant(lr) if config.schedule == "constant" else _cosine(lr, total - steps)

    def rate(step: int) -> float:
        return lr * (step + 1) / steps if step < steps else after(step - steps)

    return rate if steps else after


@dataclass(frozen=True)
class Constant:
    """The schedule of a constant learning rate."""

    lr: float

    def __call__(self, step: int) -> float:
        """Return the learning rate."""
        return self.lr


def _cosine(lr: float, total: int) -> Schedule:
    return lambda step: _between(lr, 0, step / total)


def _onecycle(lr: float, warmup: float, total: int) -> Schedule:
    first, last = lr / DIV_FACTOR, lr / DIV_FACTOR / FINAL_DIV_FACTOR
    peak = warmup - 1  # as in OneCycleLR

    def rate(step: int) -> float:
        if step <= peak and peak > 0:
            return _between(first, lr, step / peak)
        return _between(lr, last, (step - peak) / max(1, total - 1 - peak))

    return rate


def _between(start: float, end: float, share: float) -> float:
    """Interpolate from `start` (share 0) to `end` (share 1) along half a cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
