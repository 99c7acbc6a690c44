"""The user's own data: an .npz file of four arrays, read without pickle and checked before use."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lockstep.config.errors import Refused

Array = NDArray[Any]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read(path: Path) -> tuple[Array, ...]:
    """Return the file's ARRAYS, checked. Raise Refused with every problem found."""
    arrays, problems = _read_file(path)
    problems += check_arrays(arrays)
    if problems:
        raise Refused([f"data.path={path}: {problem}" for problem in problems])
    return tuple(arrays[name] for name in ARRAYS)


def _read_file(path: Path) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays that can be read, and the problems of the file and of the others."""
    try:
        with open(path, "rb") as file:  # np.load leaves its own file open when the content is malformed
            npz = np.load(file, allow_pickle=False)
            if isinstance(npz, np.lib.npyio.NpzFile):
                return _members(npz)
        fault = "holds a single array"
    except FileNotFoundError:
        fault = "there is no such file"
    except IsADirectoryError:
        fault = "is a folder"
    except Exception as error:  # malformed content can raise nearly anything
        fault = f"can't be read as .npz ({type(error).__name__})"
    return {}, [f"{fault}; allowed: an .npz file with {', '.join(ARRAYS)}"]


def _members(npz: np.lib.npyio.NpzFile) -> tuple[dict[str, Array], list[str]]:
    arrays, problems = {}, []
    for name in ARRAYS:
        if name in npz.files:
            try:
                arrays[name] = np.asarray(npz[name])
            except Exception as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                problems.append(f"{name} can't be read: {reason}")
        else:
            near = difflib.get_close_matches(name, set(npz.files) - set(ARRAYS), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(
                f"{name} is missing; the file holds {', '.join(npz.files[:20]) or 'nothing'}{hint}"
            )
    return arrays, problems


def check_arrays(arrays: Mapping[str, Array]) -> list[str]:
    """Return the problems of these arrays, which are some or all of ARRAYS: empty if none."""
    problems = []
    for name, array in arrays.items():
        problems += _check_features(name, array) if name.startswith("x") else _check_labels(name, array)
    for part in ("train", "test"):
        x, y = arrays.get(f"x_{part}"), arrays.get(f"y_{part}")
        if x is not None and y is not None and x.ndim and y.ndim and len(x) != len(y):
            problems.append(f"y_{part} holds {len(y)} labels for the {len(x)} instances of x_{part}")
    x_train, y_train, x_test, y_test = (arrays.get(name) for name in ARRAYS)
    if x_train is not None and x_test is not None:
        if x_train.shape[1:] != x_test.shape[1:]:
            problems.append(
                f"an instance of x_train has the shape {x_train.shape[1:]}, of x_test {x_test.shape[1:]}"
            )
        if (x_train.dtype == np.uint8) != (x_test.dtype == np.uint8):
            problems.append(
                f"x_train has the type {x_train.dtype}, x_test {x_test.dtype}; "
                "allowed: uint8, which is divided by 255, in both or in neither"
            )
    if y_train is not None and not _check_labels("y_train", y_train):
        present = np.unique(y_train)
        missing = np.setdiff1d(np.arange(len(present)), present)
        if len(missing):
            problems.append(
                f"y_train has labels up to {present[-1]} but no {missing[0]}; "
                "allowed: all of 0 to n_classes - 1; renumber with np.unique(y, return_inverse=True)"
            )
        if len(present) == 1:
            problems.append(f"y_train holds the single class {present[0]}; allowed: two classes or more")
        if y_test is not None and not _check_labels("y_test", y_test) and y_test.max() > present[-1]:
            problems.append(f"y_test has the label {y_test.max()}; y_train's classes are 0 to {present[-1]}")
    return problems


def _check_features(name: str, x: Array) -> list[str]:
    problems = []
    if x.ndim < 2 or x.size == 0:
        problems.append(f"{name} has the shape {x.shape}; allowed: instances x features, one or more of each")
    if x.dtype.kind not in "biuf":
        problems.append(f"{name} has the type {x.dtype}; allowed: numbers")
    elif x.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            bad = int(np.count_nonzero(~np.isfinite(x.astype(np.float32))))
        if bad:
            problems.append(f"{name} holds {bad:,} values that are NaN, infinite or too large for float32")
    return problems


def _check_labels(name: str, y: Array) -> list[str]:
    problems = []
    if y.ndim != 1 or y.size == 0:
        problems.append(f"{name} has the shape {y.shape}; allowed: one label for each instance")
    if y.dtype.kind not in "iu":
        problems.append(f"{name} has the type {y.dtype}; allowed: integers")
    elif y.size and y.min() < 0:
        problems.append(f"{name} has the label {y.min()}; allowed: 0 to n_classes - 1")
    return problems
