"""Data sets that a worker of a cluster is sent."""

import asyncio

import numpy as np
import pytest

from lockstep.data.array_files import NAMES, Prepared, Source
from lockstep.data.description import DataDescription
from lockstep.execution import cluster_data

DESCRIBED = DataDescription("own", "0123456789abcdef" * 2, (4,), ("a", "b"), 30, 10, "own.npz")


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    draws = np.random.default_rng(0)
    shapes = dict(zip(NAMES, ((30, 4), (30,), (10, 4), (10,), (1, 1)), strict=True))
    arrays = [draws.random(shape).astype(np.float32) for shape in shapes.values()]
    return Source(None, "own.npz", lambda: Prepared(DESCRIBED, arrays))


def parts(path, size=100):
    content = path.read_bytes()
    return [(start, content[start : start + size]) for start in range(0, len(content), size)]


def test_a_data_set_whose_sending_was_cut_off_is_whole_when_it_is_sent_again(source):
    digest, files = DESCRIBED.digest, dict(zip(NAMES, source.files().paths, strict=True))
    for start, part in parts(files["x_train"])[:3]:
        cluster_data.take(digest, "x_train", start, part)
    for name, path in files.items():
        for start, part in parts(path):
            cluster_data.take(digest, name, start, part)
    asyncio.run(cluster_data.keep(None, DESCRIBED))
    kept = cluster_data._sources.pop(digest)
    for name, path in zip(NAMES, kept.files().paths, strict=True):
        assert np.array_equal(np.load(path), np.load(files[name])), name


def test_parts_of_two_commands_at_once_are_not_mixed(source):
    start, part = parts(source.files().paths[0])[1]
    with pytest.raises(ValueError, match="x_train: has 0 bytes, not 100; another command sends it too"):
        cluster_data.take("f" * 32, "x_train", start, part)
    cluster_data._received.pop("f" * 32).cleanup()
