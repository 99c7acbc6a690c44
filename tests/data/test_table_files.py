"""A table's file: what is read of it, and what can't be."""

import bz2
import gzip
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers.tables import birds, write
from pyarrow import parquet

from lockstep.config.errors import Refused
from lockstep.data import table_files
from lockstep.data.table_files import CATEGORIES, NUMBERS, opened

TEXT = "x,c,y\n1,u,a\n2.5,,b\nNA,v,a\n"
READ = {"x": [1, 2.5, None], "c": ["u", None, "v"], "y": ["a", "b", "a"]}


def read(path, content=None, names=None):
    if content is not None:
        write(path, content)
    file = opened("data.path", path)
    return file.read(list(names or file.types))


def refusal(path, content=None, names=None):
    with pytest.raises(Refused) as caught:
        read(path, content, names)
    [problem] = caught.value.problems
    assert problem.startswith(f"data.path={path}: ")
    return problem.removeprefix(f"data.path={path}: ")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", TEXT),
        ("t.csv", f"\ufeff{TEXT}"),
        ("t.csv", TEXT.replace("\n", "\r\n")),
        ("t.csv", TEXT.replace("\n", "\r")),
        ("t.csv", TEXT.replace(",", ";")),
        ("t.CSV", TEXT.replace(",", "\t")),
        ("t.tsv", TEXT.replace(",", "\t")),
        ("t.csv.gz", gzip.compress(TEXT.encode())),
        ("t.csv.bz2", bz2.compress(TEXT.encode())),
        ("t.2020.tsv.GZ", gzip.compress(TEXT.replace(",", "\t").encode())),
        ("t.parquet", pd.DataFrame(READ)),
    ],
    ids=range(11),
)
def test_formats(tmp_path, name, content):
    table = read(tmp_path / name, content)
    assert table.to_pydict() == READ
    assert table.schema.types == [NUMBERS, CATEGORIES, CATEGORIES]


def test_names_are_taken_as_they_are(tmp_path):
    names = ["a=b", "c,d", "é ñ", " s ", "[z]", "a.b", "a"]
    table = pd.DataFrame([range(7), range(1, 8)], columns=names)
    for path in (tmp_path / "t.csv", tmp_path / "t.parquet"):
        assert read(path, table, names[::-1]).to_pydict() == {
            name: [i, i + 1.0] for i, name in enumerate(names)
        }


def test_types_of_parquet(tmp_path):
    import decimal

    table = pa.table(
        {
            "f": pa.array([1.5, float("nan"), None], pa.float32()),
            "h": pa.array(np.float16([1, 2, 3])),
            "n": pa.array([decimal.Decimal("1.5"), None, None]),
            "b": pa.array([True, None, False]),
            "s": pa.array(["u", "v", None], pa.large_string()),
            "k": pa.array(["u", "v", None]).dictionary_encode(),
            "i": pa.array([5, 6, None]).dictionary_encode(),
            "0": pa.nulls(3),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet")
    assert found.column("f").to_numpy().tolist()[:1] == [1.5]
    assert np.isnan(found.column("f").to_numpy()).tolist() == [False, True, True]
    assert found.select("hnbski0").to_pydict() == {
        "h": [1, 2, 3],
        "n": [1.5, None, None],
        "b": ["true", None, "false"],
        "s": ["u", "v", None],
        "k": ["u", "v", None],
        "i": [5, 6, None],
        "0": [None] * 3,
    }


def test_a_file_of_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "BLOCK_BYTES", 2**10)
    n = 2000
    late = [""] * (n - 2)
    table = pd.DataFrame(
        {
            "x": range(n),
            "c": [f"c{i % 7}" for i in range(n)],
            "t": [*late, "u", "v"],
            "n": [*late, "1", "2.5"],
            "none": [""] * n,
            "line": [f"a\n{i}" for i in range(n)],
        }
    )
    found = read(tmp_path / "t.csv", table).to_pydict()
    assert found["x"] == list(range(n)) and found["c"] == table["c"].to_list()
    assert found["t"][-3:] == [None, "u", "v"] and found["n"][-3:] == [None, 1, 2.5]
    assert found["none"] == [None] * n and found["line"] == table["line"].to_list()
    assert refusal(tmp_path / "t.csv", table.assign(x=[*range(n - 1), "?"])) == (
        "column 'x' begins with numbers, or bools, but has the value '?'"
    )


NOT_UTF8 = "is not UTF-8; convert it first: iconv -f latin1 -t utf-8 <file> > <new file>"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", None, "there is no such file; allowed: .csv, .tsv (also compressed: .gz"),
        ("t.xlsx", b"PK", "not a table by its name; allowed: .csv, .tsv"),
        ("t.csv.xz", b"", "not a table by its name"),
        ("gz", b"", "not a table by its name"),
        ("t.csv", b"", "has no rows"),
        ("t.csv", b"\n\n\n", "has no rows"),
        ("t.csv", b"x,y", "has no rows"),
        ("t.csv", b"x,y\n", "has no rows"),
        ("t.csv", TEXT + "1,u\n", "row 5 has 2 values; the header, which is row 1, has 3 names"),
        ("t.csv", TEXT + "1,u,a,b\n", "row 5 has 4 values; the header, which is row 1, has 3 names"),
        ("t.csv", "x,x,y\n1,2,3\n", "has several columns named 'x'; rename them"),
        ("t.csv", TEXT.replace("u", "é").encode("latin1"), NOT_UTF8),
        ("t.csv", TEXT.replace("x", "é").encode("latin1"), NOT_UTF8),
        ("t.csv", TEXT.encode("utf-16"), NOT_UTF8.replace("latin1", "utf-16")),
        ("t.tsv", "\ufeffé\ty".encode("utf-16-be"), NOT_UTF8.replace("latin1", "utf-16")),
        ("t.csv.gz", gzip.compress(TEXT.encode("utf-16")), NOT_UTF8.replace("latin1", "utf-16")),
        ("t.csv", b"\0\1\2\n" * 9, "has NUL bytes, which binary files have, and UTF-16; allowed: UTF-8"),
        ("t.tsv", TEXT.encode("utf-16-le"), "has NUL bytes, which binary files have, and UTF-16"),
        ("t.csv.gz", TEXT, "can't be read: "),
        ("t.csv.gz", gzip.compress(TEXT.encode() * 5000)[:-99], "can't be read: "),
        ("t.parquet", TEXT, "can't be read: "),
    ],
    ids=range(21),
)
def test_what_cannot_be_read(tmp_path, name, content, said):
    assert refusal(tmp_path / name, content).startswith(said)


def test_what_is_no_file_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    assert refusal(tmp_path / "t.csv").startswith("is not a regular file; allowed: ")
    (tmp_path / "t.parquet").mkdir()
    assert refusal(tmp_path / "t.parquet").startswith("is a folder; allowed: ")


@pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet"])
def test_a_table_that_needs_too_much_memory_is_refused_while_it_is_read(tmp_path, monkeypatch, name):
    table = birds(1000)
    if name == "t.csv.gz":
        (tmp_path / name).write_bytes(gzip.compress(table.to_csv(index=False).encode()))
    else:
        write(tmp_path / name, table)
    monkeypatch.setattr(table_files, "physical_bytes", lambda: 2**14)
    assert refusal(tmp_path / name) == (
        "needs more than half of this machine's memory (0.0 GiB); leave out columns (data.drop) or rows"
    )
    assert read(tmp_path / name, names=["flipper"]).num_rows == 1000
