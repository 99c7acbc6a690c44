"""Which instances a run trains on, in which order. Suffixes: N instances, B instances of a minibatch."""

import math

import torch

SPLIT_SEED = 0
"""Seeds the validation split of every run: runs are compared on the same instances."""


def split(n: int, val_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to train on and rows to validate on, both int64, disjoint, in ascending order.

    Depends on the number of training instances and on val_size alone; a larger validation split contains
    every smaller one. Raises ValueError for what `check_stream` reports.
    """
    if not 0 <= val_size < n:
        raise ValueError(f"val_size={val_size}: allowed: 0 to {n - 1}")
    order_N = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order_N[val_size:].sort().values, order_N[:val_size].sort().values


class Minibatches:
    """One run's stream: each epoch's minibatches, in an order drawn from the run's own CPU generator.

    Raises ValueError unless the training rows fill one minibatch or more.
    """

    def __init__(
        self, train_indices: torch.Tensor, batch_size: int, drop_last: bool, generator: torch.Generator
    ) -> None:
        if not 1 <= batch_size <= len(train_indices):
            raise ValueError(f"batch_size={batch_size}: allowed: 1 to {len(train_indices)}")
        self._train_indices_N = train_indices
        self._batch_size = batch_size
        self._generator = generator
        batches = len(train_indices) / batch_size
        self.steps = math.floor(batches) if drop_last else math.ceil(batches)
        """Iterations per epoch."""

    def skip(self, epochs: int) -> None:
        """Go on after so many epochs."""
        for _ in range(epochs):
            torch.randperm(len(self._train_indices_N), generator=self._generator)

    def epoch(self) -> list[torch.Tensor]:
        """`steps` int64 tensors of B rows each (the last may be shorter unless drop_last), newly shuffled."""
        order_N = torch.randperm(len(self._train_indices_N), generator=self._generator)
        return list(torch.split(self._train_indices_N[order_N], self._batch_size))[: self.steps]
