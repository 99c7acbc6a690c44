"""The validation split and shuffled minibatches. Suffixes: N instances, B instances of a minibatch."""

import math

import torch

from lockstep.data.augmentation import Augmentation

SPLIT_SEED = 0
"""Seed of every run's validation split, so that runs are compared on the same instances."""


def split(n: int, val_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows to train on and to validate on, int64, disjoint, in ascending order.

    They depend on `n` and `val_size` only; a larger validation split contains every smaller one.
    Raise ValueError unless 0 <= val_size < n.
    """
    if not 0 <= val_size < n:
        raise ValueError(f"val_size={val_size}: allowed: 0 to {n - 1}")
    order_N = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order_N[val_size:].sort().values, order_N[:val_size].sort().values


class Minibatches:
    """A stream of minibatches, shuffled in each epoch by a CPU generator of its own.

    With augmentation, they are indices of variants, drawn anew in each epoch.

    Raises ValueError unless the training rows fill one minibatch or more.
    """

    def __init__(
        self,
        train_indices: torch.Tensor,
        batch_size: int,
        drop_last: bool,
        generator: torch.Generator,
        augmentation: Augmentation | None = None,
    ) -> None:
        if not 1 <= batch_size <= len(train_indices):
            raise ValueError(f"batch_size={batch_size}: allowed: 1 to {len(train_indices)}")
        self._train_indices_N = train_indices
        self._batch_size = batch_size
        self._generator = generator
        self._augmentation = augmentation
        batches = len(train_indices) / batch_size
        self.steps = math.floor(batches) if drop_last else math.ceil(batches)
        """Iterations per epoch."""

    def skip(self, epochs: int) -> None:
        """Skip epochs."""
        for _ in range(epochs):
            self._order()

    def epoch(self) -> list[torch.Tensor]:
        """Return `steps` int64 tensors of B rows, newly shuffled; the last is shorter unless drop_last."""
        return list(torch.split(self._order(), self._batch_size))[: self.steps]

    def _order(self) -> torch.Tensor:
        order_N = torch.randperm(len(self._train_indices_N), generator=self._generator)
        indices_N = self._train_indices_N[order_N]
        return indices_N if self._augmentation is None else self._augmentation.draw(indices_N)
