"""Data sets as tensors. N and M are training and test instances, F features."""

import functools
from dataclasses import dataclass, field

import numpy as np
import torch

from lockstep.config.data_config import DataConfig, TableConfig
from lockstep.data import folds, minibatches, sources, splits
from lockstep.data.array_files import ArrayFiles
from lockstep.data.description import DataDescription
from lockstep.data.used_features import UsedFeatures, used_features


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory. All runs of a process share it, so never write to it.

    Attributes:
        x_train, x_test: N x F and M x F, float32, scaled as `description` says; features in the source's
            order, see `lockstep.data.images`.
        y_train, y_test: N and M, int64, 0 .. n_classes - 1.
        x_blank: 1 x F, or 1 x 1 if all are equal; the value of a blank pixel, see `scaling.scaled`.
    """

    description: DataDescription
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    x_blank: torch.Tensor = field(default_factory=lambda: torch.zeros(1, 1))

    def split(self, stream: DataConfig) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of the training set to train on and to validate on: int64, disjoint, ascending.

        Of a table, the second are stratified, and drawn with data.split_seed; see also `minibatches.split`.
        """
        if isinstance(stream, TableConfig):
            left_N, val_N = splits.stratified(self.y_train.numpy(), stream.val_size, stream.split_seed)
            return torch.from_numpy(left_N), torch.from_numpy(val_N)
        return minibatches.split(self.description.n_train, stream.val_size)

    @functools.cached_property
    def used_features(self) -> UsedFeatures:
        """The features that some training instance uses."""
        return used_features(self.x_train)


def load(config: DataConfig) -> Dataset:
    """Return the data set that `config` names: one object per data set and scaling, for any batch size.

    Raise Refused if it isn't available (no source reached, folder not writable) or has invalid arrays.
    """
    return mapped(sources.load(config).files())


@functools.lru_cache(maxsize=8)
def mapped(files: ArrayFiles) -> Dataset:
    """Map a data set into this process's memory, once."""
    # Copy-on-write, as torch needs writable memory; nothing is written.
    x_train, y_train, x_test, y_test, x_blank = (
        torch.from_numpy(np.load(path, mmap_mode="c")) for path in files.paths
    )
    if files.description.fold_sizes:
        train, test = folds.stretches(files.description)
        x_train, y_train, x_test, y_test = x_train[train], y_train[train], x_train[test], y_train[test]
    return Dataset(files.description, x_train, y_train, x_test, y_test, x_blank)
