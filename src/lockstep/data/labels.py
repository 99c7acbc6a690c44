"""Labels of many kinds → class indices, by the sorted classes of the training set.

Labels are integers, whole floats, bools or text, one for each instance (N or N x 1), or one-hot rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NAMES_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Labels:
    """Encoded labels.

    Attributes:
        train, test: N and M, int64, indices of `class_names`.
        class_names: the training set's classes, sorted, as text.
    """

    train: Array
    test: Array
    class_names: tuple[str, ...]


def encode(y_train: Array, y_test: Array) -> Labels:
    """Encode labels that `check_labels` and `check_classes` found no problem with."""
    classes, train = np.unique(_flat(y_train), return_inverse=True)
    test = np.searchsorted(classes, _flat(y_test))
    return Labels(train.astype(np.int64), test.astype(np.int64), _names(classes))


def check_labels(y: Array) -> list[str]:
    """Return the problem of these labels by themselves, to be read after their name; empty if none."""
    is_number = y.dtype.kind in "biuf"
    is_single = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    if y.size == 0 or not (is_single or (y.ndim == 2 and is_number and _is_one_hot(y))):
        return [f"has the shape {y.shape}; allowed: one label for each instance, or one-hot rows"]
    if y.dtype.kind == "S":
        try:
            np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            return [f"can't be read as UTF-8 ({error.reason})"]
    elif not is_number and y.dtype.kind != "U":
        return [f"has the type {y.dtype}; allowed: integers, whole floats, bools or text"]
    elif y.dtype.kind in "uf":
        # Beyond these limits, different labels would be equal in int64.
        limit = 2**53 if y.dtype.kind == "f" else np.iinfo(np.int64).max
        wide = y.astype(np.float64) if y.dtype == np.float16 else y
        with np.errstate(invalid="ignore"):  # NaN
            bad = y[(wide != np.floor(wide)) | ~(np.abs(wide) <= limit)]
        if bad.size:
            return [f"has the label {bad[0]}; allowed: whole numbers up to {limit}, bools or text"]
    return []


def check_classes(y_train: Array, y_test: Array | None) -> list[str]:
    """Return the problems of labels that are valid by themselves: of their classes, and of the test set's."""
    classes = np.unique(_flat(y_train))
    problems = []
    if len(classes) == 1:
        problems.append(f"y_train holds the single class {classes[0]}; allowed: two classes or more")
    is_numbered = classes.dtype.kind == "i" and classes[0] == 0 and classes[-1] == len(classes) - 1
    if len(classes) > max(20, len(y_train) // 2) and not is_numbered:
        problems.append(
            f"y_train has {len(classes):,} different labels for {len(y_train):,} instances; "
            "allowed: classes of several instances each"
        )
    if y_test is None:
        return problems
    if _kind(y_train) != _kind(y_test):
        problems.append(f"y_train holds {_kind(y_train)}, y_test {_kind(y_test)}; allowed: the same in both")
    elif len(unknown := np.setdiff1d(_flat(y_test), classes)):
        problems.append(
            f"y_test has labels that y_train lacks: {listed(_names(unknown))}; "
            f"y_train's classes are {listed(_names(classes))}"
        )
    return problems


def majority_of(train_N: Array, test_N: Array) -> tuple[int, float | None]:
    """Return the most frequent class of the training set, and the share of the test set that has it.

    Args:
        train_N, test_N: class indices.

    Returns:
        Of equally frequent classes the first; no share of a test set that is empty.
    """
    majority = int(np.bincount(train_N).argmax())
    return majority, float((test_N == majority).mean()) if len(test_N) else None


def listed(names: tuple[str, ...]) -> str:
    """Return names in one line, the first `NAMES_SHOWN` of them."""
    return ", ".join(names[:NAMES_SHOWN]) + (f", … ({len(names)})" if len(names) > NAMES_SHOWN else "")


def _kind(y: Array) -> str:
    if y.ndim == 2 and y.shape[1] > 1:
        return f"one-hot rows of {y.shape[1]}"
    return {"U": "text", "S": "text", "b": "bools"}.get(y.dtype.kind, "numbers")


def _is_one_hot(y: Array) -> bool:
    return bool(((y == 0) | (y == 1)).all() and (np.count_nonzero(y, axis=1) == 1).all())


def _flat(y: Array) -> Array:
    """Return labels in one dimension: of text, bools or int64."""
    if y.ndim == 2:
        y = y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0]
    if y.dtype.kind == "S":
        return np.char.decode(y, "utf-8")
    return y if y.dtype.kind in "Ub" else y.astype(np.int64)


def _names(classes: Array) -> tuple[str, ...]:
    return tuple(map(str, classes.tolist()))
