"""Data sets that a worker of a cluster is sent."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
from platformdirs import user_cache_path

from lockstep.config.data_config import ArraysConfig
from lockstep.data.array_files import NAMES, Prepared, Source
from lockstep.data.description import DataDescription
from lockstep.execution import cluster_data

DESCRIBED = DataDescription("own", "0123456789abcdef" * 2, (4,), ("a", "b"), 30, 10, "own.npz")

OWN = ArraysConfig(name="arrays", path="own.npz", batch_size=8, drop_last=True, val_size=0, shuffle_seed=0)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    draws = np.random.default_rng(0)
    shapes = dict(zip(NAMES, ((30, 4), (30,), (10, 4), (10,), (1, 1)), strict=True))
    arrays = [draws.random(shape).astype(np.float32) for shape in shapes.values()]
    return Source(None, "own.npz", lambda: Prepared(DESCRIBED, arrays))


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    cluster_data._sources.clear()
    cluster_data._received.clear()


def parts(source, size=100):
    """What is sent of a data set: the name of a file and some of its bytes, one after the other."""
    for name, path in zip(NAMES, source.files().paths, strict=True):
        content = path.read_bytes()
        for start in range(0, len(content), size):
            yield name, content[start : start + size]


def take(sending, *part):
    cluster_data.take(DESCRIBED.digest, sending, *part)


def keep(sending):
    asyncio.run(cluster_data.keep(None, DESCRIBED, sending))


def is_whole(source):
    paths = zip(cluster_data.source(DESCRIBED.digest).files().paths, source.files().paths, strict=True)
    return all(np.array_equal(np.load(one), np.load(other)) for one, other in paths)


@pytest.mark.parametrize("n_sent", [1, 3, 12])
def test_a_data_set_whose_sending_was_cut_off_is_whole_when_it_is_sent_again(source, n_sent):
    for part in [*parts(source)][:n_sent]:
        take("cut off", *part)
    [left] = cluster_data._received[DESCRIBED.digest].values()
    for part in parts(source):
        take("again", *part)
    keep("again")
    assert is_whole(source) and not Path(left.name).exists()


def test_two_commands_send_the_same_data_set_at_once(source):
    sent = [*parts(source)]
    for part in sent[:-2]:
        take("one", *part)
        take("other", *part)
    for part in sent[-2:]:
        take("other", *part)
    keep("other")
    for part in sent[-2:]:
        take("one", *part)
    keep("one")
    assert is_whole(source) and not cluster_data._received


def test_a_damaged_data_set_in_the_cache_is_sent_again(source):
    config, digest = OWN, DESCRIBED.digest

    def find():
        cluster_data._sources.clear()
        return asyncio.run(cluster_data.find("a key", config, digest))

    assert not find()
    for part in parts(source):
        take("first", *part)
    asyncio.run(cluster_data.keep("a key", DESCRIBED, "first"))
    [kept] = (user_cache_path("lockstep") / "arrays").glob("*")
    assert find()
    with (kept / "x_train.npy").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"bits")
    assert not find()


def test_of_many_data_sets_the_last_ones_are_held_open(source, monkeypatch):
    monkeypatch.setattr(cluster_data, "N_KEPT", 2)
    for digest in ("one", "two", "one", "three"):
        cluster_data._hold(digest, source)
    assert [*cluster_data._sources] == ["one", "three"]
