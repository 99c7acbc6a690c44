"""Tiny data sets as files."""

import dataclasses
import hashlib
import struct
import sys
import time
from functools import partial

import numpy as np

from lockstep.data import downloads
from lockstep.data.downloads import FILES

# A tiny MNIST whose training pixels run through all 256 values, so that every scaled value is checked.
PIXELS = np.arange(4 * 28 * 28).reshape(4, 28, 28).astype(np.uint8)


TINY = (PIXELS, np.uint8([5, 0, 4, 1]), PIXELS[:2], np.uint8([7, 2]))


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


CONTENTS = {file: idx(array) for file, array in zip(FILES, TINY, strict=True)}


MD5 = tuple(hashlib.md5(content).hexdigest() for content in CONTENTS.values())


def write_files(folder, contents=CONTENTS):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return folder


def good_source(temporary):
    return write_files(temporary / "somewhere")


def tiny(*sources, name="mnist"):
    """The entry of DOWNLOADED for `name`, with the tiny data set's files and these sources."""
    return dataclasses.replace(downloads.DOWNLOADED[name], md5=MD5, sources=sources)


X, Y = np.arange(24.0).reshape(4, 2, 3), np.array([0, 1, 2, 1])


GOOD = dict(x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2])


def save(path, **changes):
    np.savez(path, **{name: array for name, array in (GOOD | changes).items() if array is not None})
    return path


def counting_source(fetched, temporary):
    with open(fetched, "a") as log:
        log.write("fetched\n")
    time.sleep(0.5)  # so that the other process comes by meanwhile
    return good_source(temporary)


def load_in_process(barrier, root, fetched):
    downloads.DOWNLOADED["mnist"] = tiny(("a friend", partial(counting_source, fetched)))
    barrier.wait(60)
    arrays, _ = downloads.load("mnist", root)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, TINY, strict=True))
    assert not {"torch", "torchvision"} & set(sys.modules)  # they take seconds to import
