"""Runs read from the tables of a local SQLite store, whose schema `_mlflow_compat` knows.

MLflow's client reads a run in 2 ms, most of it for objects of SQLAlchemy, of which a run takes fifty; this
takes 0.1 ms.
"""

import math
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunTag,
)

from lockstep.tracking._mlflow_compat import SCHEMAS
from lockstep.tracking.address import sqlite_path

AT_ONCE = 500
"""Values of one query; SQLite before 3.32 takes 999."""


def runs_with_tag(uri: str, experiment_id: str, tag: str, values: Iterable[str]) -> list[Run] | None:
    """Return an experiment's active runs in which a tag has one of these values, the latest first.

    None if the store is no SQLite file whose schema is known. The runs' inputs lack tags, and outputs.

    Raises:
        sqlite3.Error: if the store can't be read.
    """
    with _connected(uri) as connection:
        if connection is None:
            return None
        query = "SELECT run_uuid FROM tags JOIN runs USING (run_uuid) WHERE experiment_id = ? AND key = ?"
        found = [
            run_id
            for some in _parts(values)
            for (run_id,) in connection.execute(
                f"{query} AND value IN ({_marks(some)})", [int(experiment_id), tag, *some]
            )
        ]
        runs = _read(connection, found)
    return sorted(runs, key=lambda run: (-run.info.start_time, run.info.run_id))


def runs_of_ids(uri: str, run_ids: Iterable[str]) -> list[Run] | None:
    """Return the active runs with these ids, in any order; see `runs_with_tag`."""
    with _connected(uri) as connection:
        return None if connection is None else _read(connection, run_ids)


@contextmanager
def _connected(uri: str) -> Iterator[sqlite3.Connection | None]:
    if not uri.startswith("sqlite"):
        yield None
        return
    file = f"{sqlite_path(uri).as_uri()}?mode=ro"
    with closing(sqlite3.connect(file, uri=True, timeout=20)) as connection:
        [(schema,)] = connection.execute("SELECT version_num FROM alembic_version")
        yield connection if schema in SCHEMAS.split() else None


def _parts(values: Iterable[str]) -> Iterator[list[str]]:
    unique = list(dict.fromkeys(values))
    yield from (unique[start : start + AT_ONCE] for start in range(0, len(unique), AT_ONCE))


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _read(connection: sqlite3.Connection, run_ids: Iterable[str]) -> list[Run]:
    return [run for some in _parts(run_ids) for run in _read_some(connection, some)]


def _read_some(connection: sqlite3.Connection, ids: Sequence[str]) -> Iterator[Run]:
    def rows(query: str) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows of a query by its first column. Runs share most texts."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        for run_id, *row in connection.execute(query.format(marks=_marks(ids)), ids):
            shared = (sys.intern(value) if isinstance(value, str) else value for value in row)
            found.setdefault(run_id, []).append(tuple(shared))
        return found

    infos = rows(
        "SELECT run_uuid, experiment_id, user_id, status, start_time, end_time, lifecycle_stage,"
        " artifact_uri, name FROM runs WHERE lifecycle_stage = 'active' AND run_uuid IN ({marks})"
    )
    params = rows("SELECT run_uuid, key, value FROM params WHERE run_uuid IN ({marks})")
    tags = rows("SELECT run_uuid, key, value FROM tags WHERE run_uuid IN ({marks})")
    metrics = rows(
        "SELECT run_uuid, key, CASE WHEN is_nan THEN NULL ELSE value END, timestamp, step"
        " FROM latest_metrics WHERE run_uuid IN ({marks})"
    )
    inputs = rows(
        "SELECT destination_id, name, digest, dataset_source_type, dataset_source, dataset_schema,"
        " dataset_profile FROM inputs JOIN datasets ON source_id = dataset_uuid"
        " WHERE source_type = 'DATASET' AND destination_type = 'RUN' AND destination_id IN ({marks})"
    )
    for run_id, [(experiment_id, *info)] in infos.items():
        points = metrics.get(run_id, ())
        yield Run(
            RunInfo(run_id, str(experiment_id), *info),
            RunData(
                [Metric(key, math.nan if value is None else value, *at) for key, value, *at in points],
                [Param(*pair) for pair in params.get(run_id, ())],
                [RunTag(*pair) for pair in tags.get(run_id, ())],
            ),
            RunInputs([DatasetInput(Dataset(*data)) for data in inputs.get(run_id, ())]),
        )
