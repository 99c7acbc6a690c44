"""The user's own data: an .npz file of four arrays, read without pickle and checked before use."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray

from lockstep.config.errors import Refused
from lockstep.data.labels import check_classes, check_labels
from lockstep.data.memory import physical_bytes

Array = NDArray[Any]

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
ALLOWED = f"allowed: an .npz file with {', '.join(ARRAYS)}"

RATIO, ANY_RATIO = 100, 2**30
"""The most bytes that a compressed byte may stand for, in arrays of more than ANY_RATIO bytes. MNIST has 5,
zeros have 1,000."""


def read(path: Path) -> tuple[Array, ...]:
    """Return the file's ARRAYS, checked. Raise Refused with every problem found."""
    arrays, problems = _read_file(path)
    problems += check_arrays(arrays)
    if problems:
        raise Refused([f"data.path={path}: {problem}" for problem in problems])
    return tuple(arrays[name] for name in ARRAYS)


def _read_file(path: Path) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays that can be read, and the problems of the file and of the others."""
    if path.exists() and not path.is_file():  # to open a pipe would wait for a writer
        return {}, [f"is a folder; {ALLOWED}" if path.is_dir() else f"is not a regular file; {ALLOWED}"]
    try:
        with open(path, "rb") as file:  # np.load leaves its own file open when the content is malformed
            if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                return {}, [f"holds a single array; {ALLOWED}"]
            file.seek(0)
            npz = np.load(file, allow_pickle=False)
            return ({}, problems) if (problems := _too_large(npz, path.stat().st_size)) else _members(npz)
    except FileNotFoundError:
        fault = "there is no such file"
    except Exception as error:  # malformed content can raise nearly anything
        fault = f"can't be read as .npz ({type(error).__name__})"
    return {}, [f"{fault}; {ALLOWED}"]


def _too_large(npz: np.lib.npyio.NpzFile, size: int) -> list[str]:
    """Return a problem if a file's headers say that its arrays are too large to be unpacked."""
    assert npz.zip is not None  # it is open
    sizes = {info.filename.removesuffix(".npy"): info.file_size for info in npz.zip.infolist()}
    unpacked = sum(sizes.get(name, 0) for name in ARRAYS)
    memory = physical_bytes()
    says = f"{size:,} bytes that unpack to {unpacked:,}"
    if unpacked > memory:
        return [f"{says}; allowed: no more than the {memory:,} of this machine's memory"]
    if unpacked > max(ANY_RATIO, RATIO * size):
        return [f"{says}; allowed: {RATIO} times as many; save it by np.savez, without compression"]
    return []


def _members(npz: np.lib.npyio.NpzFile) -> tuple[dict[str, Array], list[str]]:
    arrays, problems = {}, []
    for name in ARRAYS:
        if name in npz.files:
            try:
                arrays[name] = np.asarray(npz[name])
            except Exception as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                plain = "float" if name.startswith("x") else "str"
                hint = f"; save {name}.astype({plain})" if "Object arrays" in reason else ""
                problems.append(f"{name} can't be read: {reason}{hint}")
        else:
            near = difflib.get_close_matches(name, set(npz.files) - set(ARRAYS), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(
                f"{name} is missing; the file holds {', '.join(npz.files[:20]) or 'nothing'}{hint}"
            )
    return arrays, problems


def check_arrays(arrays: Mapping[str, Array]) -> list[str]:
    """Return the problems of these arrays, which are some or all of ARRAYS: empty if none."""
    problems, bad_labels = [], set()
    for name, array in arrays.items():
        if name.startswith("x"):
            problems += _check_features(name, array)
        elif found := check_labels(array):
            problems += [f"{name} {problem}" for problem in found]
            bad_labels.add(name)
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
                "allowed: uint8, whose pixels are divided by 255, in both or in neither"
            )
    if y_train is not None and "y_train" not in bad_labels:
        problems += check_classes(y_train, None if "y_test" in bad_labels else y_test)
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
