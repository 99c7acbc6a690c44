"""Small tables as files."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lockstep.config.errors import Refused
from lockstep.data.tables import Wanted, prepare

WANTED = Wanted(
    path=Path(),
    test_path=None,
    target="species",
    features=None,
    drop=(),
    missing="refuse",
    test_size=0.2,
    split_seed=0,
    val_size=0,
    fold=None,
    folds=None,
)


def birds(n=60):
    """A table of numbers and categories, and of classes that depend on them."""
    random = np.random.RandomState(0)
    mass, island = random.normal(4200, 800, n), random.choice(["Biscoe", "Dream", "Torgersen"], n)
    return pd.DataFrame(
        {
            "mass": mass.round(1),
            "island": island,
            "flipper": random.randint(170, 230, n),
            "is_banded": random.rand(n) > 0.5,
            "species": np.where(mass > 4500, "Gentoo", np.where(island == "Dream", "Chinstrap", "Adelie")),
        }
    )


def write(path, table):
    """Write a table, or the text of one, to a file."""
    if isinstance(table, pd.DataFrame):
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    else:
        path.write_bytes(table if isinstance(table, bytes) else table.encode())
    return path


def made(path, table=None, **changes):
    """The data set of a table that is written to a file, or is there."""
    if table is not None:
        write(path, table)
    if "test_path" in changes:
        changes["test_size"] = None
    return prepare(dataclasses.replace(WANTED, path=path, **changes))


def refused(path, table=None, **changes):
    """What is said of a table that is refused, without the file's name."""
    with pytest.raises(Refused) as caught:
        made(path, table, **changes)
    return [problem.removeprefix(f"data.path={path}: ") for problem in caught.value.problems]
