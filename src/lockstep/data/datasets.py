"""Data sets as tensors in memory. N and M are training and test instances, F features.

MNIST and Fashion-MNIST come from `downloads`, the user's own arrays from `arrays`, digits from scikit-learn.
"""

import contextlib
import functools
import hashlib
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
from lockstep.data.description import DataDescription


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory. All runs of a process share it, so never write to it.

    Attributes:
        x_train, x_test: N x F and M x F, float32; pixels lie in [0, 1].
        y_train, y_test: N and M, int64, 0 .. n_classes - 1.
    """

    description: DataDescription
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor


def load(config: DataConfig) -> Dataset:
    """Return the data set that `config` names: one object per data set, for any batch size or split.

    Raise Refused if it isn't available (no source reached, folder not writable) or has invalid arrays.
    """
    if isinstance(config, DigitsConfig):
        return _load_digits()
    if isinstance(config, ArraysConfig):
        path = Path(os.path.expanduser(config.path)).absolute()
        return _load_arrays(path, _stamp(path))
    root = user_cache_path("lockstep") if config.root is None else Path(os.path.expanduser(config.root))
    return _load_downloaded(config.name, root.absolute())


def check_stream(config: DataConfig, data: DataDescription) -> list[str]:
    """Return why this data set can't be split and batched as configured, a message per key."""
    n, problems = data.n_train, []
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


@functools.cache
def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits  # here, because loading it takes 1 s
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
    # The MD5 proves that files from any source are the ones that this class reads.
    source = f"torchvision.datasets.{downloads.DOWNLOADED[name].torchvision_class}"
    return _dataset(name, loaded, class_names, source, scale=255)


@functools.lru_cache(maxsize=8)
def _load_arrays(path: Path, stamp: tuple[int, int] | None) -> Dataset:
    read = arrays.read(path)
    x_train, y_train, *_ = read
    scale = 255 if x_train.dtype == np.uint8 else 1
    return _dataset("arrays", read, _numbered(int(y_train.max()) + 1), str(path), scale)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return a stamp that changes when the file does, so that a rewritten file is read again."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return None


def _dataset(
    name: str, arrays: Sequence[Array], class_names: tuple[str, ...], source: str, scale: float
) -> Dataset:
    x_train, y_train, x_test, y_test = arrays
    return Dataset(
        DataDescription(
            name=name,
            digest=_digest(x_train, y_train, x_test, y_test),
            feature_shape=x_train.shape[1:],
            class_names=class_names,
            n_train=len(y_train),
            n_test=len(y_test),
            source=source,
        ),
        x_train=_features(x_train, scale),
        y_train=torch.from_numpy(y_train.astype(np.int64)),
        x_test=_features(x_test, scale),
        y_test=torch.from_numpy(y_test.astype(np.int64)),
    )


def _features(x: Array, scale: float) -> torch.Tensor:
    # Cast first, then divide in float32: so pixels equal torchvision's ToTensor bit for bit.
    return torch.from_numpy(x.reshape(len(x), -1).astype(np.float32)).div_(scale)


def _digest(*arrays: Array) -> str:
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(f"{array.dtype.str} {array.shape} ".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()[:32]


def _numbered(n_classes: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(n_classes))
