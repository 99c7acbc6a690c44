"""A data set in files that workers map into their memory, so that they share one copy of it."""

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from weakref import WeakKeyDictionary, finalize

import numpy as np
import torch
from platformdirs import user_cache_path

from lockstep.data.datasets import Dataset
from lockstep.data.description import DataDescription

HEADER_BYTES = 4096
"""At least as long as the header of NumPy's files."""


@dataclass(frozen=True)
class MappedDataset:
    """The files of a data set's tensors; it is sent with every task.

    Attributes:
        files: a file in NumPy's format for each tensor.
    """

    description: DataDescription
    files: dict[str, Path]


_saved: WeakKeyDictionary[Dataset, MappedDataset] = WeakKeyDictionary()
_mapped = dict[str, Dataset]()


def save(dataset: Dataset) -> MappedDataset:
    """Write a data set to files once; they last as long as the data set in this process."""
    if dataset not in _saved:
        names = [field.name for field in fields(dataset) if field.name != "description"]
        files = {name: _write(getattr(dataset, name), dataset) for name in names}
        _saved[dataset] = MappedDataset(dataset.description, files)
    return _saved[dataset]


def load(saved: MappedDataset) -> Dataset:
    """Map a data set into this process's memory once."""
    digest = saved.description.digest
    if digest not in _mapped:
        # Copy-on-write, as torch needs writable memory; nothing is written.
        arrays = {name: np.load(path, mmap_mode="c") for name, path in saved.files.items()}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        _mapped[digest] = Dataset(saved.description, **tensors)
    return _mapped[digest]


def _write(tensor: torch.Tensor, dataset: Dataset) -> Path:
    # A file without a name: it is gone when this process ends, however it ends. Other processes open it by
    # the descriptor.
    folder = _folder()
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it stays open
    finalize(dataset, file.close)
    try:
        os.posix_fallocate(file.fileno(), 0, HEADER_BYTES + tensor.nbytes)  # NumPy does not say "disk full"
    except OSError as error:
        raise OSError(
            error.errno, error.strerror, f"{folder} (copy of {dataset.description.name})"
        ) from error
    np.save(file, tensor.numpy())
    file.flush()
    return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _folder() -> Path:
    """Return the cache folder, or where it can't be written, the one for temporary files, often in memory."""
    folder = user_cache_path("lockstep")
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
