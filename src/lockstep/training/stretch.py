"""The next minibatches, gathered once for all runs of an array.

Shapes: T steps of a stretch, B minibatch, N instances, F features, C classes.
"""

import torch
from torch import Tensor

from lockstep.data.augmentation import Augmentation
from lockstep.data.used_features import UsedFeatures

INSTANCES_AT_ONCE = 1024
"""Instances of a stretch: 16 of the workshop's minibatches. More take memory and aren't faster."""

ALIGNMENT = 16
"""Every row of weights starts at a multiple of this many elements: 64 bytes in float32, a cache line and an
AVX-512 vector. So the alignment is the same in every run of a stack."""


def steps_at_once(n_rows: int) -> int:
    """Return the number of steps of a stretch, on minibatches of `n_rows` instances."""
    return max(1, INSTANCES_AT_ONCE // n_rows)


def aligned(n: int) -> int:
    """Return the least multiple of ALIGNMENT that is n or more."""
    return -(-n // ALIGNMENT) * ALIGNMENT


class Stretch:
    """The next minibatches of one size, gathered once for all runs.

    Attributes:
        n_steps: T, at most `steps_at_once`, which is the buffers' length; only their first T steps are valid.
        x_TxBxJ: the instances: F features, one that is always 1, and zeros up to an aligned width.
        used_TxBxJ: the same with the used features only, see `lockstep.data.used_features`.
        y_TxB: their classes.
        target_TxCxB: -1 / B at each instance's class, 0 elsewhere.
    """

    def __init__(
        self,
        n_rows: int,
        n_classes: int,
        x_NxF: Tensor,
        augmentation: Augmentation | None = None,
        used: UsedFeatures | None = None,
    ) -> None:
        self.n_rows, self.n_steps = n_rows, 0
        n_steps = steps_at_once(n_rows)
        self.x_TxBxJ = self.used_TxBxJ = _inputs(x_NxF, n_steps, n_rows, x_NxF.shape[1])
        self._used = used
        if used is not None:
            self.used_TxBxJ = _inputs(x_NxF, n_steps, n_rows, len(used.used_U))
        self.y_TxB = torch.empty(n_steps, n_rows, dtype=torch.int64, device=x_NxF.device)
        dtype = torch.promote_types(x_NxF.dtype, torch.float32)  # bfloat16 would round 1 / B
        self.target_TxCxB = x_NxF.new_empty(n_steps, n_classes, n_rows, dtype=dtype)
        self._augmentation = augmentation

    def gather(self, x_NxF: Tensor, y_N: Tensor, indices_TxB: Tensor) -> None:
        """Copy the instances at `indices_TxB`, or with augmentation their variants, into the buffers."""
        self.n_steps = n_steps = len(indices_TxB)
        x_TxBxF = self.x_TxBxJ[:n_steps, :, : x_NxF.shape[1]]
        if self._augmentation is None:
            torch.index_select(x_NxF, 0, indices_TxB.flatten(), out=x_TxBxF.flatten(0, 1))
        else:
            self._augmentation.gather(x_NxF, indices_TxB.flatten(), x_TxBxF.flatten(0, 1))
            indices_TxB = indices_TxB % len(x_NxF)
        if self._used is not None:
            used_TxBxU = self.used_TxBxJ[:n_steps, :, : len(self._used.used_U)]
            self._used.copy(x_TxBxF.flatten(0, 1), out=used_TxBxU.flatten(0, 1))
        self.y_TxB[:n_steps] = y_N[indices_TxB]
        target_TxCxB = self.target_TxCxB[:n_steps].zero_()
        target_TxCxB.scatter_(1, self.y_TxB[:n_steps, None], -1 / self.n_rows)


def _inputs(like: Tensor, n_steps: int, n_rows: int, n_features: int) -> Tensor:
    """Return T x B x J for instances of that many features, with the input that is always 1."""
    x_TxBxJ = like.new_zeros(n_steps, n_rows, aligned(n_features + 1))
    x_TxBxJ[:, :, n_features] = 1
    return x_TxBxJ
