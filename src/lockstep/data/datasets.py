"""Data sets -> tensors in memory, and the streams of minibatches drawn from them.

MNIST and Fashion-MNIST come from `downloads`, the user's own arrays from `npz`; digits ships inside
scikit-learn. Shape suffixes: N instances, F features, B instances of a minibatch.
"""

import contextlib
import functools
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path

from lockstep.config.schema import ArraysConfig, DataConfig, DigitsConfig
from lockstep.data import arrays, downloads
from lockstep.data.arrays import Array

SPLIT_SEED = 0
"""Seeds the validation split of every run: runs are compared on the same instances."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory, shared by all runs of the process: read it, never write to it."""

    name: str
    x_train: torch.Tensor  # N x F float32; pixels in [0, 1]
    y_train: torch.Tensor  # N int64, 0 .. n_classes - 1
    x_test: torch.Tensor  # M x F float32
    y_test: torch.Tensor  # M int64
    feature_shape: tuple[int, ...]  # what one row was before it was flattened, (28, 28) for MNIST
    class_names: tuple[str, ...]
    digest: str  # 32 hex digits of the source arrays' content: equal digests, equal data
    source: str  # where the data came from, for the record

    @property
    def n_features(self) -> int:
        return self.x_train.shape[1]

    @property
    def n_classes(self) -> int:
        return len(self.class_names)


def load(config: DataConfig) -> Dataset:
    """The data set that `config` names; the same object again for the same data, whatever the stream.

    Raises Refused if it can't be had (no source reached, folder not writable) or can't be trained on.
    """
    if isinstance(config, DigitsConfig):
        return _load_digits()
    if isinstance(config, ArraysConfig):
        path = Path(os.path.expanduser(config.path)).absolute()
        return _load_arrays(path, _stamp(path))
    root = user_cache_path("lockstep") if config.root is None else Path(os.path.expanduser(config.root))
    return _load_downloaded(config.name, root.absolute())


def split(dataset: Dataset, val_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to train on and rows to validate on, both int64, disjoint, in ascending order.

    Depends on the number of training instances and on val_size alone; a larger validation split contains
    every smaller one. Raises ValueError for what `check_stream` reports.
    """
    n = len(dataset.x_train)
    if not 0 <= val_size < n:
        raise ValueError(f"val_size={val_size}: allowed: 0 to {n - 1}")
    order_N = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order_N[val_size:].sort().values, order_N[:val_size].sort().values


def check_stream(config: DataConfig, dataset: Dataset) -> list[str]:
    """What keeps this data set from being split and batched as configured; one message per key."""
    n, problems = len(dataset.x_train), []
    left, whence = n - config.val_size, f" that data.val_size={config.val_size} leaves"
    if left < 1:
        problems.append(
            f"data.val_size={config.val_size}: leaves none of the {n:,} training instances to train on; "
            f"allowed: 0 to {n - 1}"
        )
    if left < 1 or left == n:
        left, whence = n, ""
    if config.batch_size > left:
        problems.append(
            f"data.batch_size={config.batch_size}: larger than the {left:,} training instances{whence}; "
            f"allowed: 1 to {left}"
        )
    return problems


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


@functools.cache
def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits  # here, because it takes a second
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    arrays = (x_train, y_train, x_test, y_test)
    return _dataset("digits", arrays, _numbered(10), "sklearn.datasets.load_digits", scale=16)


@functools.cache
def _load_downloaded(name: str, root: Path) -> Dataset:
    loaded, class_names = downloads.load(name, root)
    # Whoever the files were fetched from: by their MD5 they are those that this class reads.
    source = f"torchvision.datasets.{downloads.DOWNLOADED[name].torchvision_class}"
    return _dataset(name, loaded, class_names, source, scale=255)


@functools.lru_cache(maxsize=8)
def _load_arrays(path: Path, stamp: tuple[int, int] | None) -> Dataset:
    read = arrays.read(path)
    x_train, y_train, *_ = read
    scale = 255 if x_train.dtype == np.uint8 else 1
    return _dataset("arrays", read, _numbered(int(y_train.max()) + 1), str(path), scale)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file does, so that a rewritten file is read again."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return None


def _dataset(
    name: str, arrays: Sequence[Array], class_names: tuple[str, ...], source: str, scale: float
) -> Dataset:
    x_train, y_train, x_test, y_test = arrays
    return Dataset(
        name=name,
        x_train=_features(x_train, scale),
        y_train=torch.from_numpy(y_train.astype(np.int64)),
        x_test=_features(x_test, scale),
        y_test=torch.from_numpy(y_test.astype(np.int64)),
        feature_shape=x_train.shape[1:],
        class_names=class_names,
        digest=_digest(x_train, y_train, x_test, y_test),
        source=source,
    )


def _features(x: Array, scale: float) -> torch.Tensor:
    # Cast first, then divide in float32: so pixels are bit for bit what torchvision's ToTensor makes of them.
    return torch.from_numpy(x.reshape(len(x), -1).astype(np.float32)).div_(scale)


def _digest(*arrays: Array) -> str:
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(f"{array.dtype.str} {array.shape} ".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()[:32]


def _numbered(n_classes: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(n_classes))
