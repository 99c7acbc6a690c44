"""Data sets in files: the same values in a worker, nothing left behind."""

import os
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from helpers.configs import run_config
from helpers.in_worker import opened

from lockstep.data.datasets import load
from lockstep.execution import mapped, pool
from lockstep.execution.task import NO_ROOM

TENSORS = {"x_train", "y_train", "x_test", "y_test", "x_blank"}


@pytest.fixture
def dataset():
    """A data set that nobody else holds: workers keep what they have mapped, by its digest."""
    digits = load(run_config().data)
    return replace(digits, description=replace(digits.description, digest=uuid4().hex))


def test_a_worker_maps_the_same_values(dataset):
    worker = pool.worker()
    worker.submit(opened, mapped.save(dataset))
    found = worker.result()
    assert found["pid"] != os.getpid()
    assert found["description"] == dataset.description
    assert found["mapped"] == found["arrays"].keys() == TENSORS
    for name, array in found["arrays"].items():
        expected = getattr(dataset, name).numpy()
        assert array.dtype == expected.dtype
        assert np.array_equal(array, expected)


def test_it_is_written_once_and_mapped_once(dataset):
    saved = mapped.save(dataset)
    assert mapped.save(dataset) == saved
    assert mapped.load(saved) is mapped.load(saved)


@pytest.mark.parametrize("place", ["cache", "temporary"])
def test_its_files_have_no_names_and_end_with_it(tmp_path, monkeypatch, place):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("cache" if place == "cache" else "a file")))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    dataset = replace(load(run_config().data))
    files = mapped.save(dataset).files.values()
    targets = [os.readlink(path) for path in files]
    assert all(target.startswith(f"{tmp_path}/{place}/") for target in targets)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a file"]
    del dataset
    held = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    assert not held & set(targets)


def test_a_full_disk_is_an_error_that_names_the_folder(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            OSError, match=f"File too large: '{tmp_path}/lockstep .copy of digits.'"
        ) as raised:
            mapped.save(dataset)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno in NO_ROOM
