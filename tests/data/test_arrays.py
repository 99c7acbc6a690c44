"""npz.py: the user's own arrays are read without pickle, and what can't be trained on is refused."""

import os
import zipfile

import numpy as np
import pytest
from helpers.data_files import GOOD, X, Y, save
from hypothesis import given
from hypothesis import strategies as st

from lockstep.config.errors import Refused
from lockstep.data import arrays


def assert_refused(path, expected):
    """Refused with as many problems as expected, each beginning as expected."""
    with pytest.raises(Refused) as caught:
        arrays.read(path)
    problems = caught.value.problems
    assert len(problems) == len(expected), problems
    for problem, text in zip(problems, expected, strict=True):
        assert problem.startswith(f"data.path={path}: {text}")


def test_read(tmp_path):
    own = GOOD | dict(x_train=X.astype(">i2"), y_train=Y.astype(np.uint8))
    for array, expected in zip(arrays.read(save(tmp_path / "own.npz", **own)), own.values(), strict=True):
        assert array.dtype == expected.dtype
        assert np.array_equal(array, expected)


class Payload:
    def __reduce__(self):
        return os.mkdir, (os.environ["PAYLOAD"],)


def test_a_pickle_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "executed"))
    path = save(tmp_path / "own.npz", x_train=np.array([[Payload()]] * 4, dtype=object))
    assert_refused(path, ["x_train can't be read: Object arrays cannot be loaded when allow_pickle=False"])
    assert not (tmp_path / "executed").exists()


def single(path):
    with open(path, "wb") as file:
        np.save(file, X)


def cut(path):
    path.write_bytes(save(path).read_bytes()[:-30])


def flip(path):
    content = bytearray(save(path).read_bytes())
    content[content.index(b"x_train.npy") + 200] ^= 1
    path.write_bytes(content)


def no_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in arrays.ARRAYS:
            archive.writestr(name, "text")


@pytest.mark.parametrize(
    "make, expected",
    [
        (
            lambda path: None,
            [f"there is no such file; allowed: an .npz file with {', '.join(arrays.ARRAYS)}"],
        ),
        (lambda path: path.mkdir(), ["is a folder; allowed: "]),
        (lambda path: path.write_text("x,y\n1,2\n"), ["can't be read as .npz (ValueError); allowed: "]),
        (cut, ["can't be read as .npz (BadZipFile); allowed: "]),
        (single, ["holds a single array; allowed: "]),
        (flip, ["x_train can't be read: Bad CRC-32 for file 'x_train.npy'"]),
        (
            no_arrays,
            [
                f"{name} has the {what}"
                for name in arrays.ARRAYS
                for what in ("shape ()", "type |S4")[: 1 + name.startswith("x")]
            ],
        ),
    ],
)
def test_unreadable(tmp_path, make, expected):
    make(tmp_path / "own.npz")
    assert_refused(tmp_path / "own.npz", expected)


SIGNALLING_NAN = np.where(X, X.view(np.uint64), 0x7FF4000000000000).view(float)  # its cast makes NumPy warn


@pytest.mark.parametrize(
    "changes, expected",
    [
        (
            dict.fromkeys(arrays.ARRAYS),
            [f"{name} is missing; the file holds nothing" for name in arrays.ARRAYS],
        ),
        (
            dict(x_train=None, y_train=None, X_train=X, labels=Y),
            [
                "x_train is missing; the file holds x_test, y_test, X_train, labels; did you mean X_train?",
                "y_train is missing; the file holds x_test, y_test, X_train, labels",
            ],
        ),
        (dict(x_test=X[:2, 0, 0]), ["x_test has the shape (2,); allowed: instances", "an instance of x_"]),
        (dict(x_test=np.float64(1)), ["x_test has the shape ()", "an instance of x_train has the shape"]),
        (dict(y_train=np.int64(1)), ["y_train has the shape ()"]),
        (dict(x_test=X[:0], y_test=Y[:0]), ["x_test has the shape (0, 2, 3)", "y_test has the shape (0,)"]),
        (dict(x_train=X[:, :0], x_test=X[:2, :0]), ["x_train has the shape (4, 0, 3)", "x_test has the"]),
        (dict(y_train=Y[:3], y_test=Y), ["y_train holds 3 labels for the 4 instances", "y_test holds 4"]),
        (
            dict(y_train=np.eye(4, dtype=int) * 2),
            ["y_train has the shape (4, 4); allowed: one label for each"],
        ),
        (dict(y_train=np.eye(4)[:, [0, 1, 2, 2]]), ["y_train has the shape (4, 4); allowed: one label for"]),
        (dict(y_train=Y.astype(str).repeat(2).reshape(4, 2)), ["y_train has the shape (4, 2); allowed: one"]),
        (dict(y_train=Y + 0.5), ["y_train has the label 0.5; allowed: whole numbers"]),
        (dict(y_train=np.where(Y, Y, np.nan)), ["y_train has the label nan; allowed: whole numbers"]),
        (dict(y_test=np.float16([0, np.inf])), ["y_test has the label inf; allowed: whole numbers"]),
        (
            dict(y_train=Y * 1j),
            ["y_train has the type complex128; allowed: integers, whole floats, bools or"],
        ),
        (dict(y_train=np.array([b"a", b"b", b"\xff", b"a"])), ["y_train can't be read as UTF-8"]),
        (
            dict(y_train=np.uint64([0, 1, 2**64 - 1, 1])),
            [f"y_train has the label {2**64 - 1}; allowed: whole"],
        ),
        (dict(y_train=Y * 0, y_test=Y[:2] * 0), ["y_train holds the single class 0; allowed: two classes"]),
        (dict(x_train=X * 1j), ["x_train has the type complex128; allowed: numbers"]),
        (dict(x_test=np.where(X, X, -np.inf)[:2]), ["x_test holds 1 values that are NaN, infinite or too"]),
        (dict(x_train=SIGNALLING_NAN), ["x_train holds 1 values that are NaN"]),
        (dict(x_train=X.astype(np.uint8)), ["x_train has the type uint8, x_test float64; allowed: uint8"]),
        (
            dict(y_train=None, y_test=Y.astype(object)[:2]),
            ["y_train is missing", "y_test can't be read: Object"],
        ),
        (
            dict(x_train=np.where(X, X, 1e300), x_test=X[:2, :1], y_train=Y[:3] * 0, y_test=None),
            [
                "y_test is missing",
                "x_train holds 1 values",
                "y_train holds 3 labels",
                "an instance of x_train has the shape (2, 3), of x_test (1, 3)",
                "y_train holds the single class 0; allowed: two classes or more",
            ],
        ),
    ],
)
def test_unusable(tmp_path, changes, expected):
    assert_refused(save(tmp_path / "own.npz", **changes), expected)


def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "own.npz")
    assert_refused(tmp_path / "own.npz", ["is not a regular file; allowed: "])


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("ANY_RATIO", "allowed: 100 times as many; save it by np.savez"),
        ("physical_bytes", "allowed: no more than"),
    ],
)
def test_arrays_that_unpack_to_too_much_are_refused_by_their_headers(tmp_path, monkeypatch, limit, said):
    path = tmp_path / "own.npz"
    own = GOOD | dict(x_train=np.zeros((4, 100_000)), x_test=np.zeros((2, 100_000)))
    np.savez_compressed(path, **own)
    assert len(arrays.read(path)) == 4
    monkeypatch.setattr(arrays, limit, 2**20 if limit == "ANY_RATIO" else lambda: 2**20)
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda *_: pytest.fail("it was unpacked"))
    unpacked = sum(array.nbytes + 128 for array in own.values())  # each has a header of 128 bytes
    assert_refused(path, [f"{path.stat().st_size:,} bytes that unpack to {unpacked:,}; {said}"])


def test_arrays_without_compression_may_be_as_large_as_memory(tmp_path, monkeypatch):
    path = save(tmp_path / "own.npz", x_train=np.zeros((4, 1000)), x_test=np.zeros((2, 1000)))
    monkeypatch.setattr(arrays, "ANY_RATIO", 1)
    assert arrays.read(path)[0].shape == (4, 1000)


@given(content=st.binary(max_size=300), at=st.integers(0, 2000))
def test_any_damage_is_refused_or_harmless(tmp_path_factory, content, at):
    path = save(tmp_path_factory.getbasetemp() / "damaged.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    try:
        x_train, y_train, *_ = arrays.read(path)
    except Refused as refused:
        assert refused.problems
    else:
        assert np.isfinite(x_train.astype(np.float32)).all()
        assert len(np.unique(y_train)) > 1
