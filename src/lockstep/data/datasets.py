"""Data sets as tensors in memory. N and M are training and test instances, F features.

MNIST and Fashion-MNIST come from `downloads`, the user's own arrays from `arrays`, digits from scikit-learn.
"""

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path

from lockstep.config.schema import ArraysConfig, AugmentConfig, DataConfig, DigitsConfig
from lockstep.data import arrays, downloads, scaling
from lockstep.data.arrays import Array
from lockstep.data.description import DataDescription, has_channels_last, is_image
from lockstep.data.labels import Labels, encode, listed
from lockstep.data.scaling import Scaling
from lockstep.data.used_features import UsedFeatures, used_features

log = logging.getLogger("lockstep")


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

    @functools.cached_property
    def used_features(self) -> UsedFeatures:
        """The features that some training instance uses."""
        return used_features(self.x_train)


def load(config: DataConfig) -> Dataset:
    """Return the data set that `config` names: one object per data set and scaling, for any batch size.

    Raise Refused if it isn't available (no source reached, folder not writable) or has invalid arrays.
    """
    wanted = Scaling.of(config)
    if isinstance(config, DigitsConfig):
        return _load_digits(wanted)
    if isinstance(config, ArraysConfig):
        path = Path(os.path.expanduser(config.path)).absolute()
        if _kept is None:
            return _load_arrays(path, _stamp(path), wanted)
        if (path, wanted) not in _kept:
            _kept[path, wanted] = _load_arrays(path, _stamp(path), wanted)
        return _kept[path, wanted]
    root = user_cache_path("lockstep") if config.root is None else Path(os.path.expanduser(config.root))
    return _load_downloaded(config.name, root.absolute(), wanted)


_kept: dict[tuple[Path, Scaling], Dataset] | None = None


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Read each file of arrays once: all runs have one content, whatever happens to the file meanwhile."""
    global _kept
    _kept = {}
    try:
        yield
    finally:
        _kept = None


def check_stream(config: DataConfig, data: DataDescription) -> list[str]:
    """Return why this data set can't be split and batched as configured, a message per key."""
    n, problems = data.n_train, _check_augment(config.augment, data)
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


def _check_augment(config: AugmentConfig, data: DataDescription) -> list[str]:
    key = f"data.augment.shift={config.shift}" if config.shift else "data.augment.flip=true"
    shape = data.feature_shape
    if config.is_on and not is_image(shape):
        return [
            f"{key}: only for images (H x W, or 3-D with 1, 3 or 4 channels);"
            f" an instance of {data.name} has the shape {shape}"
        ]
    most = min(data.input_shape[-2:]) // 4
    if config.shift > most:
        return [f"{key}: allowed: 0 to {most}, a quarter of the shorter side of an image of {data.name}"]
    return []


@functools.lru_cache(maxsize=8)
def _load_digits(wanted: Scaling) -> Dataset:
    from sklearn.datasets import load_digits  # here, because loading it takes 1 s
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    read = (x_train, y_train, x_test, y_test)
    return _dataset("digits", read, encode(y_train, y_test), "sklearn.datasets.load_digits", wanted, 16)


@functools.lru_cache(maxsize=8)
def _load_downloaded(name: str, root: Path, wanted: Scaling) -> Dataset:
    read, class_names = downloads.load(name, root, is_ours=root == user_cache_path("lockstep"))
    # The MD5 proves that files from any source are the ones that this class reads.
    source = f"torchvision.datasets.{downloads.DOWNLOADED[name].torchvision_class}"
    labels = Labels(read[1].astype(np.int64), read[3].astype(np.int64), class_names)
    return _dataset(name, read, labels, source, wanted, 255)


@functools.lru_cache(maxsize=8)
def _load_arrays(path: Path, stamp: tuple[int, int] | None, wanted: Scaling) -> Dataset:
    read = arrays.read(path)
    x_train, y_train, _, y_test = read
    labels, earlier = encode(y_train, y_test), 255 if x_train.dtype == np.uint8 else 1
    dataset = _dataset("arrays", read, labels, str(path), wanted, earlier, scaling.automatic(x_train))
    done = {"none": "used as they are", "standardize": "standardized"}
    scale, classes = dataset.description.scale, listed(labels.class_names)
    what = f"{done.get(scale, f'divided by {scale}')} (data.scale={wanted.scale})"
    if has_channels_last(dataset.description.feature_shape):
        what += ", images are taken as N x H x W x C"
    log.info("%s: features are %s; classes: %s", path, what, classes)
    return dataset


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return a stamp that changes when the file does, so that a rewritten file is read again."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return None


def _dataset(
    name: str,
    read: Sequence[Array],
    labels: Labels,
    source: str,
    wanted: Scaling,
    earlier: int,
    auto: int | None = None,
) -> Dataset:
    """Return the data set of four arrays as read.

    Args:
        earlier: the divisor of features before `data.scale` existed.
        auto: the divisor that data.scale=auto stands for, None for the earlier one.
    """
    x_train, _, x_test, _ = read
    scale = wanted.resolved(earlier if auto is None else auto)
    train, test, blank = scaling.scaled(x_train, x_test, scale, wanted.val_size)
    if (name == "arrays" or wanted.scale != "auto") and (warning := scaling.warning(train)):
        log.warning("%s: %s", source, warning)
    return Dataset(
        DataDescription(
            name=name,
            digest=wanted.digest(_digest(*read), scale, earlier),
            feature_shape=x_train.shape[1:],
            class_names=labels.class_names,
            n_train=len(x_train),
            n_test=len(x_test),
            source=source,
            scale=scale,
        ),
        x_train=train,
        y_train=torch.from_numpy(labels.train),
        x_test=test,
        y_test=torch.from_numpy(labels.test),
        x_blank=blank,
    )


def _digest(*arrays: Array) -> str:
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(f"{array.dtype.str} {array.shape} ".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()[:32]
