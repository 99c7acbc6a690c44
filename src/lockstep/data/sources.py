"""Data sets as arrays in files, scaled; no torch is needed.

MNIST and Fashion-MNIST come from `downloads`, the user's own data from `arrays` and `tables`, digits from
scikit-learn.
"""

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from platformdirs import user_cache_path

from lockstep.config.data_config import (
    ArraysConfig,
    AugmentConfig,
    DataConfig,
    DigitsConfig,
    DownloadedConfig,
    TableConfig,
)
from lockstep.data import arrays, downloads, scaling
from lockstep.data import folds as of_folds
from lockstep.data.array_files import Prepared, Source
from lockstep.data.arrays import Array
from lockstep.data.description import DataDescription, has_channels_last, is_image
from lockstep.data.labels import Labels, encode, listed, majority_of
from lockstep.data.scaling import Scaling

if TYPE_CHECKING:
    from lockstep.data.tables import Wanted

log = logging.getLogger("lockstep")

FORMAT = 2
"""Of the arrays that are kept: raise it when those of equal data change."""


def load(config: DataConfig) -> Source:
    """Return the data set that `config` names: one object per data set and scaling, for any batch size.

    What was loaded once, by whichever command, is opened: its files are made only for new content or scaling.

    Raise Refused if it isn't available (no source reached, folder not writable) or has invalid arrays.
    """
    if isinstance(config, TableConfig):
        return _table(config)
    wanted = Scaling.of(config)
    if config.fold is None:
        return _load(config, wanted, None)
    return _load_fold(_load(config, replace(wanted, val_size=0), config.folds), config.fold, wanted.val_size)


def _load(
    config: DownloadedConfig | DigitsConfig | ArraysConfig, wanted: Scaling, folds: int | None
) -> Source:
    """Return a data set; with `folds`, the pool of its instances, see `lockstep.data.folds`."""
    if isinstance(config, DigitsConfig):
        return _load_digits(wanted, folds)
    if isinstance(config, ArraysConfig):
        path = Path(os.path.expanduser(config.path)).absolute()
        return _once((path, wanted, folds), lambda: _load_arrays(path, _stamp(path), wanted, folds))
    root = user_cache_path("lockstep") if config.root is None else Path(os.path.expanduser(config.root))
    return _load_downloaded(config.name, root.absolute(), wanted, folds)


@functools.lru_cache(maxsize=32)
def _load_fold(pool: Source, fold: int, val_size: int) -> Source:
    key = None if pool.key is None else _key(pool.key, fold, val_size)
    return Source(key, pool.description.source, lambda: of_folds.fold_of(pool, fold, val_size))


_kept: dict[object, Source] | None = None


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Read each file of the user's once: all runs have one content, whatever happens to it meanwhile."""
    global _kept
    _kept = {}
    try:
        yield
    finally:
        _kept = None


def _once(wanted: object, load: Callable[[], Source]) -> Source:
    if _kept is None:
        return load()
    if wanted not in _kept:
        _kept[wanted] = load()
    return _kept[wanted]


def check_stream(config: DataConfig, data: DataDescription) -> list[str]:
    """Return why this data set can't be split and batched as configured, a message per key."""
    n, problems = data.n_train, _check_augment(config.augment, data)
    left, whence = n - config.val_size, f" that data.val_size={config.val_size} leaves"
    least = 1 if data.table is None else data.n_classes  # one row of each
    if left < least:
        rest = "none" if least == 1 else f"too few, for {least} classes,"
        problems.append(
            f"data.val_size={config.val_size}: leaves {rest} of the {n:,} training instances to train on; "
            f"allowed: 0 to {n - least}"
        )
    if left < least or left == n:
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
def _load_digits(wanted: Scaling, folds: int | None) -> Source:
    source = "sklearn.datasets.load_digits"

    def prepare() -> Prepared:
        from sklearn.datasets import load_digits  # here, because loading it takes 1 s
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        if folds is not None:
            read = (digits.images, digits.target, digits.images[:0], digits.target[:0])
            return _prepared("digits", read, encode(*read[1::2]), source, wanted, folds, 16)
        x_train, x_test, y_train, y_test = train_test_split(
            digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
        )
        read = (x_train, y_train, x_test, y_test)
        return _prepared("digits", read, encode(y_train, y_test), source, wanted, folds, 16)

    return Source(_key("digits", metadata.version("scikit-learn"), wanted, folds), source, prepare)


@functools.lru_cache(maxsize=8)
def _load_downloaded(name: str, root: Path, wanted: Scaling, folds: int | None) -> Source:
    known, is_ours = downloads.DOWNLOADED[name], root == user_cache_path("lockstep")
    source = f"torchvision.datasets.{known.torchvision_class}"

    def prepare() -> Prepared:
        read, class_names = downloads.load(name, root, is_ours)
        # The MD5 proves that files from any source are the ones that this class reads.
        labels = Labels(read[1].astype(np.int64), read[3].astype(np.int64), class_names)
        return _prepared(name, read, labels, source, wanted, folds, 255)

    if not is_ours:
        downloads.load(name, root, is_ours)  # refuses files with other content
    return Source(_key(name, known.md5, known.class_names, wanted, folds), source, prepare)


@functools.lru_cache(maxsize=8)
def _load_arrays(path: Path, stamp: tuple[int, int] | None, wanted: Scaling, folds: int | None) -> Source:
    content = _content(path, stamp)
    key = None if content is None else _key("arrays", content, wanted, folds)

    def prepare() -> Prepared:
        prepared = _of_file(path, wanted, folds)
        return prepared if _stamp(path) == stamp else replace(prepared, is_kept=False)

    return Source(key, str(path), prepare)


def _of_file(path: Path, wanted: Scaling, folds: int | None) -> Prepared:
    read = arrays.read(path)
    x_train, y_train, _, y_test = read
    labels, earlier = encode(y_train, y_test), 255 if x_train.dtype == np.uint8 else 1
    auto = scaling.automatic(x_train)
    prepared = _prepared("arrays", read, labels, str(path), wanted, folds, earlier, auto)
    done = {"none": "used as they are", "standardize": "standardized"}
    scale, classes = prepared.description.scale, listed(labels.class_names)
    what = f"{done.get(scale, f'divided by {scale}')} (data.scale={wanted.scale})"
    if has_channels_last(prepared.description.feature_shape):
        what += ", images are taken as N x H x W x C"
    remark = (logging.INFO, f"features are {what}; classes: {classes}")
    return replace(prepared, remarks=(*prepared.remarks, remark))


def _table(config: TableConfig) -> Source:
    from lockstep.data.tables import Wanted  # here, because workers don't read tables

    wanted = Wanted.of(config)
    return _once(wanted, lambda: _load_table(wanted, tuple(map(_stamp, wanted.paths))))


@functools.lru_cache(maxsize=32)
def _load_table(wanted: "Wanted", stamps: tuple[tuple[int, int] | None, ...]) -> Source:
    from lockstep.data import tables

    contents = [_content(path, stamp) for path, stamp in zip(wanted.paths, stamps, strict=True)]
    settings = [value for key, value in vars(wanted).items() if not key.endswith("path")]
    key = None if None in contents else _key("table", tables.FORMAT, contents, settings)

    def prepare() -> Prepared:
        prepared = tables.prepare(wanted)
        is_kept = tuple(map(_stamp, wanted.paths)) == stamps
        return prepared if is_kept else replace(prepared, is_kept=False)

    return Source(key, str(wanted.path), prepare)


@functools.lru_cache(maxsize=32)
def _content(path: Path, stamp: tuple[int, int] | None) -> str | None:
    """Return the digest of a file with this stamp, None if it can't be read."""
    with contextlib.suppress(OSError):
        if path.is_file():  # to open a pipe would wait for a writer
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return a stamp that changes when the file does, so that a rewritten file is read again."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return None


def _key(*parts: object) -> str:
    """Return the key of arrays that are made of these parts, see Source."""
    return hashlib.sha256(repr((FORMAT, *parts)).encode()).hexdigest()[:32]


def _prepared(
    name: str,
    read: Sequence[Array],
    labels: Labels,
    source: str,
    wanted: Scaling,
    folds: int | None,
    earlier: int,
    auto: int | None = None,
) -> Prepared:
    """Return the data set of four arrays as read; with `folds`, the pool of its instances.

    Args:
        earlier: the divisor of features before `data.scale` existed.
        auto: the divisor that data.scale=auto stands for, None for the earlier one.
    """
    x_train, _, x_test, _ = read
    scale = wanted.resolved(earlier if auto is None else auto)
    is_raw = folds is not None and scale == "standardize"  # which each fold does by itself
    features = scaling.flat(x_train, x_test) if is_raw else None
    train, test, blank = features or scaling.scaled(x_train, x_test, scale, wanted.val_size)
    warns = not is_raw and (name == "arrays" or wanted.scale != "auto")
    warning = scaling.warning(train) if warns else None
    majority, accuracy = majority_of(labels.train, labels.test)
    description = DataDescription(
        name=name,
        digest=wanted.digest(_digest(*read), scale, earlier),
        feature_shape=x_train.shape[1:],
        class_names=labels.class_names,
        n_train=len(x_train),
        n_test=len(x_test),
        source=source,
        scale=scale,
        majority=majority,
        majority_accuracy=accuracy,
    )
    scaled = (train, labels.train, test, labels.test, blank)
    prepared = Prepared(description, scaled, () if warning is None else ((logging.WARNING, warning),))
    return prepared if folds is None else of_folds.pool(prepared, folds)


def _digest(*arrays: Array) -> str:
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(f"{array.dtype.str} {array.shape} ".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()[:32]
