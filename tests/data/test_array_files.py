"""A data set's arrays in files: the same values everywhere, kept for the next command, and made again."""

import os
import resource
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.data_files import X, save
from helpers.in_worker import opened

from lockstep.config.data_config import ArraysConfig
from lockstep.config.errors import Refused
from lockstep.data import array_files, arrays, datasets, sources
from lockstep.data.array_files import NAMES
from lockstep.execution import pool
from lockstep.execution.task import NO_ROOM

STREAM = dict(batch_size=2, drop_last=True, val_size=0, shuffle_seed=0)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lockstep" / "arrays"


@pytest.fixture
def own(tmp_path, cache, monkeypatch):
    """A user's file, loaded as by a new command, and how often it was read."""
    path, n_read, read = save(tmp_path / "own.npz"), [], arrays.read

    def counted(file):
        n_read.append(file)
        return read(file)

    monkeypatch.setattr(arrays, "read", counted)

    def load(**settings):
        for cached in (sources._load_arrays, sources._content, array_files._say_once):
            cached.cache_clear()
        return sources.load(ArraysConfig(name="arrays", path=str(path), **STREAM | settings))

    return SimpleNamespace(path=path, load=load, n_read=n_read)


def kept(cache):
    return sorted(folder.name for folder in cache.iterdir())


def test_the_next_command_maps_what_one_has_made(own, cache, caplog):
    caplog.set_level("INFO")
    first = own.load()
    [remark] = caplog.messages
    again = own.load()
    assert caplog.messages == [remark] * 2
    assert len(own.n_read) == 1 and len(kept(cache)) == 1
    assert again.description == first.description
    assert np.array_equal(datasets.mapped(again.files()).x_train, X.reshape(4, 6).astype(np.float32))
    assert own.load(scale="standardize").description.digest != first.description.digest
    assert len(own.n_read) == len(kept(cache)) == 2


def test_other_content_is_other_data_even_with_the_same_time_and_size(own):
    stamp, before = own.path.stat(), own.load().description.digest
    save(own.path, x_train=X + 5)
    os.utime(own.path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert own.path.stat().st_size == stamp.st_size
    now = own.load()
    assert now.description.digest != before
    assert datasets.mapped(now.files()).x_train[0, 0] == 5


@pytest.mark.parametrize("file", [*(f"{name}.npy" for name in NAMES), "arrays.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
def test_damaged_files_are_made_again(own, cache, file, damage):
    before, [folder] = own.load(), cache.iterdir()
    content = (folder / file).read_bytes()
    if damage == "changed":
        in_json = content.replace(b'"n_train": 4', b'"n_train": 5')
        (folder / file).write_bytes(in_json if file == "arrays.json" else content[:-1] + b"!")
    elif damage == "cut":
        (folder / file).write_bytes(content[:-1])
    else:
        (folder / file).unlink()
    now = own.load()
    dataset = datasets.mapped(now.files())
    assert now.description == before.description
    assert np.array_equal(dataset.x_train, X.reshape(4, 6))
    assert dataset.y_train.tolist() == [0, 1, 2, 1]
    assert (folder / file).read_bytes() == content
    assert len(own.n_read) == 2


def test_a_file_that_is_rewritten_while_its_kept_arrays_are_damaged_is_refused(own, cache):
    own.load()
    source, [folder] = own.load(), cache.iterdir()
    with open(folder / "x_train.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    save(own.path, x_train=X + 5)
    with pytest.raises(Refused, match="has changed since this command has read it"):
        source.files()


def test_files_that_are_open_outlast_their_folder_and_the_oldest_folders_are_removed(own, cache, monkeypatch):
    monkeypatch.setattr(array_files, "KEPT", 2)
    source = own.load()
    [first] = kept(cache)
    os.utime(cache / first, (1, 1))
    own.load(scale="255")
    own.load(scale="standardize")
    assert len(kept(cache)) == 2 and first not in kept(cache)
    assert np.array_equal(datasets.mapped(source.files()).x_train, X.reshape(4, 6))


def test_a_worker_maps_the_same_values(own):
    source, worker = own.load(), pool.worker()
    worker.submit(opened, source.files())
    found = worker.result()
    assert found["pid"] != os.getpid()
    assert found["description"] == source.description
    assert found["mapped"] == found["arrays"].keys() == set(NAMES)
    for name, array in found["arrays"].items():
        expected = getattr(datasets.mapped(source.files()), name).numpy()
        assert array.dtype == expected.dtype
        assert np.array_equal(array, expected)


def test_without_a_cache_folder_files_have_no_names_and_end_with_the_source(tmp_path, own, monkeypatch):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    source = own.load()
    targets = [os.readlink(path) for path in source.files().paths]
    assert all(target.startswith(f"{tmp_path}/temporary/") for target in targets)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert np.array_equal(datasets.mapped(source.files()).x_train, X.reshape(4, 6))
    sources._load_arrays.cache_clear()
    datasets.mapped.cache_clear()
    del source
    held = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    assert not held & set(targets)


def test_a_full_disk_is_an_error_that_names_the_folder_and_leaves_nothing(own, cache):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{cache} .copy of arrays.'") as raised:
            own.load()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno in NO_ROOM
    assert list(cache.iterdir()) == []


def test_a_file_that_changes_while_it_is_read_is_not_kept(own, cache, monkeypatch):
    read = arrays.read

    def rewritten(path):
        save(own.path, x_train=X + 5)
        return read(path)

    monkeypatch.setattr(arrays, "read", rewritten)
    assert datasets.mapped(own.load().files()).x_train[0, 0] == 5
    assert not cache.exists()
