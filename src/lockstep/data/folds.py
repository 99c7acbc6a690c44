"""Folds of cross-validation: one is the test set, the others are the training set.

All instances are divided, those of a ready test set, too: as in scikit-learn, where folds are made of all
that there is, each instance is tested once.

The files of the pool have its instances sorted by fold, twice: so a fold is a stretch of them, and the other
folds are the stretch that follows it. All folds share these files, unless features are standardized, as that
depends on the training set.

Suffixes: N instances, F features.
"""

import hashlib
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lockstep.config.errors import Refused
from lockstep.data import scaling
from lockstep.data.array_files import Prepared, Source
from lockstep.data.description import DataDescription
from lockstep.data.labels import majority_of

Array = NDArray[Any]


def divided(labels_N: Array, folds: int, seed: int = 0) -> Array:
    """Return the fold of each instance, int64: those of scikit-learn's StratifiedKFold, shuffled.

    Each class is in each fold about equally often. The order of the instances is of no account.

    Args:
        labels_N: each instance's class, of any type that scikit-learn takes.

    Raises:
        Refused: if no class has as many instances as there are folds.
    """
    from sklearn.model_selection import StratifiedKFold  # here, because loading it takes 1 s

    most = int(np.unique(labels_N, return_counts=True)[1].max())
    if folds > most:
        raise Refused(
            [f"data.folds={folds}: allowed: 2 to {most:,}, the instances of the most frequent class"]
        )
    fold_N = np.empty(len(labels_N), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class has fewer instances: see `too_rare`
        division = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels_N, labels_N)
        for fold, (_, test) in enumerate(division):
            fold_N[test] = fold
    return fold_N


def pool(prepared: Prepared, folds: int) -> Prepared:
    """Return all instances of a data set, sorted by their fold, twice in a row."""
    data = prepared.description
    x_train, y_train, x_test, y_test, x_blank = map(np.asarray, prepared.arrays)
    y_N = np.concatenate([y_train, y_test])
    fold_N = divided(y_N, folds)
    rows_N = np.tile(np.argsort(fold_N, kind="stable"), 2)
    description = replace(
        data,
        digest=hashlib.sha256(data.digest.encode() + fold_N.tobytes()).hexdigest()[:32],
        n_train=len(y_N),
        n_test=0,
        majority_accuracy=None,
        fold_sizes=tuple(np.bincount(fold_N).tolist()),
    )
    x_NxF = np.concatenate([x_train, x_test])[rows_N]
    arrays = (x_NxF, y_N[rows_N], x_NxF[:0], y_N[:0], x_blank)
    return Prepared(description, arrays, (*prepared.remarks, *too_rare(y_N, data.class_names, folds)))


def too_rare(y_N: Array, class_names: tuple[str, ...], folds: int) -> list[tuple[int, str]]:
    """Return a warning, with its level, if a class has fewer instances than there are folds.

    Args:
        y_N: class indices.
    """
    counts_C = np.bincount(y_N, minlength=len(class_names))
    n = int(counts_C.min())
    if n >= folds:
        return []
    of = f"{n} instance{'s' * (n != 1)} of class {class_names[counts_C.argmin()]}"
    return [(logging.WARNING, f"data.folds={folds}: some folds have none of the {of}")]


def stretches(data: DataDescription) -> tuple[slice, slice]:
    """Return where the training and the test instances of a fold are in the arrays of its pool."""
    assert data.fold is not None
    start = sum(data.fold_sizes[: data.fold])
    stop = start + data.fold_sizes[data.fold]
    return slice(stop, start + sum(data.fold_sizes)), slice(start, stop)


def digest(pool_digest: str, fold: int, *fitted: object) -> str:
    """Return the digest of a fold.

    Args:
        fitted: what else its features depend on.
    """
    return hashlib.sha256(repr((pool_digest, fold, *fitted)).encode()).hexdigest()[:32]


def fold_of(pool: Source, fold: int, val_size: int) -> Prepared:
    """Return a fold of a pool.

    Args:
        val_size: of the split that features are standardized by, see Scaling.
    """
    all_folds, files = pool.description, pool.files()
    is_fitted = all_folds.scale == "standardize"
    of_fold = replace(all_folds, fold=fold, pool_digest=all_folds.digest)
    train, test = stretches(of_fold)
    x_NxF, y_N, *_ = (np.load(path, mmap_mode="r") for path in files.paths)
    majority, accuracy = majority_of(y_N[train], y_N[test])
    of_fold = replace(
        of_fold,
        digest=digest(all_folds.digest, fold, *([val_size] if is_fitted else ())),
        n_train=len(y_N[train]),
        n_test=len(y_N[test]),
        majority=majority,
        majority_accuracy=accuracy,
        fold_sizes=() if is_fitted else all_folds.fold_sizes,
    )
    arrays: list[Array | Path] = list(files.paths)
    if is_fitted:
        x_train, x_test, x_blank = scaling.scaled(x_NxF[train], x_NxF[test], "standardize", val_size)
        arrays = [x_train, y_N[train], x_test, y_N[test], x_blank]
    return Prepared(of_fold, arrays, is_kept=pool.is_kept)
