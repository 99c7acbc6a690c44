"""What is private in MLflow: the tables in which an SQLite store keeps runs, and the format of a view that is
shared in its UI.

MLflow has no public way to change artifact locations, so a project that was moved would be cut off from its
artifacts. Nor has it one to record several runs at once: by its client, a run takes seven transactions that
are synced to disk, 60 to 120 ms; here it takes 1 ms, and is in the store as a whole or not at all.
The columns have been the same since MLflow 3.0; `SCHEMAS` are those of 3.7 to 3.17, read in its migrations.
Nor has it a public way to say what its UI shows first: it opens with neither metrics nor params, and with its
charts in alphabetical order.
"""

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

SCHEMAS = """
5d2d30f0abce c9d4e5f6a7b8 2c33131f4dae d3e4f5a6b7c8 d0e1f2a3b4c5 c8d9e0f1a2b3 1b5f0d9ad7c1 e1f2a3b4c5d6
76601a5f987d c3d6457b6d8a a5b4c3d2e1f0 ae8bbe7743c9 7d34483879f0 da6fb0208061 89d3d66ed43f b7e4c1a90f23
a8b9c0d1e2f3 c1d2e3f4a5b6 c3d9e7f1a2b4 6f8d9c3b2a1e 1971f2d9a75b 17e22815139b b7e2c1a4d9f3 75868b020152
bf29a5ff90ea 1bd49d398cd23 b7c8d9e0f1a2 dc11669786a5
"""
"""Versions of the schema whose columns are known."""

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)

TABLES = frozenset({"experiments", "runs", "tags", "params", "metrics", "latest_metrics"})
"""Tables of every version of the schema. MLflow would make missing ones as the first version had them."""


def missing_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables that an SQLite database lacks as a store; none if it is empty."""
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return sorted(TABLES - found) if found else []


def run_locations(file: Path) -> Iterator[str]:
    """Yield the artifact locations of a store's runs, deleted ones too."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        yield from (uri for (uri,) in connection.execute("SELECT artifact_uri FROM runs") if uri)


def rewrite_locations(file: Path, rewritten: Callable[[str], str], backup: Path) -> int:
    """Rewrite all artifact locations of an SQLite store, all or none; return how many have changed.

    Args:
        backup: becomes a copy of the store as it was.

    Raises:
        ValueError: if the store's schema isn't a known one; nothing is changed.
        sqlite3.Error: if the store is locked or can't be written.
    """
    with closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as connection:
        [(schema,)] = connection.execute("SELECT version_num FROM alembic_version")
        if schema not in SCHEMAS.split():
            raise ValueError(f"MLflow's schema {schema} is not known to this version of Lockstep")
        connection.execute("BEGIN IMMEDIATE")  # nobody else writes meanwhile
        with closing(sqlite3.connect(file)) as reader, closing(sqlite3.connect(backup)) as copy:
            reader.backup(copy)  # which a connection that is about to write can't
        changed = 0
        for table, column in COLUMNS:
            rows = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL")
            for row, location in rows.fetchall():
                if (new := rewritten(location)) != location:
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (new, row))
                    changed += 1
        connection.execute("COMMIT")
        return changed


@dataclass(frozen=True)
class WholeRun:
    """A run with all that is recorded of it.

    Attributes:
        started_at, ended_at: in milliseconds of Unix time.
        data: its data set.
    """

    run_id: str
    name: str
    experiment_id: str
    artifact_uri: str
    status: str
    started_at: int
    ended_at: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Sequence["Metric"]
    data: "DatasetInput"


def insert_runs(file: Path, runs: Sequence[WholeRun], token: str) -> list[WholeRun]:
    """Insert runs into an SQLite store in one transaction; return those that are in the store now.

    Left out are runs that the store has already, or whose experiment is not active; and all of them where the
    store's schema isn't a known one.

    Args:
        token: the tag that tells whether the store has a run.

    Raises:
        sqlite3.Error: if the store is locked or can't be written; nothing is inserted.
    """
    with closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # closing it without COMMIT rolls back
        [(schema,)] = connection.execute("SELECT version_num FROM alembic_version")
        if schema not in SCHEMAS.split():
            return []
        active = "SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active'"
        experiments = {str(experiment) for (experiment,) in connection.execute(active)}
        tokens = [run.tags[token] for run in runs]
        marks = ", ".join("?" * len(tokens))
        having = f"SELECT value FROM tags WHERE key = ? AND value IN ({marks})"
        known = {value for (value,) in connection.execute(having, [token, *tokens])}
        inserted = [run for run in runs if run.experiment_id in experiments and run.tags[token] not in known]
        for table, rows in _rows(inserted, _datasets(connection, inserted)).items():
            _insert(connection, table, rows)
        connection.execute("COMMIT")
        return inserted


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        columns = ", ".join(rows[0])
        values = ", ".join(f":{column}" for column in rows[0])
        connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({values})", rows)


def _datasets(connection: sqlite3.Connection, runs: Iterable[WholeRun]) -> dict[tuple[str, str, str], str]:
    """Return the ids of data sets by experiment, name and digest; insert those that the store lacks."""
    ids = {
        (str(experiment), name, digest): uuid
        for experiment, name, digest, uuid in connection.execute(
            "SELECT experiment_id, name, digest, dataset_uuid FROM datasets"
        )
    }
    for run in runs:
        data = run.data.dataset
        if (key := (run.experiment_id, data.name, data.digest)) not in ids:
            ids[key] = uuid4().hex
            row = {
                "dataset_uuid": ids[key],
                "experiment_id": int(run.experiment_id),
                "name": data.name,
                "digest": data.digest,
                "dataset_source_type": data.source_type,
                "dataset_source": data.source,
                "dataset_schema": data.schema,
                "dataset_profile": data.profile,
            }
            _insert(connection, "datasets", [row])
    return ids


def _rows(
    runs: Iterable[WholeRun], datasets: Mapping[tuple[str, str, str], str]
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that MLflow's SqlAlchemyStore makes of runs, by table."""
    tables = ("runs", "tags", "params", "metrics", "latest_metrics", "inputs", "input_tags")
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in tables}
    for run in runs:
        of_run = {"run_uuid": run.run_id}
        rows["runs"].append(
            {
                **of_run,
                "name": run.name,
                "source_type": "UNKNOWN",
                "source_name": "",
                "entry_point_name": "",
                "user_id": run.tags["mlflow.user"],
                "status": run.status,
                "start_time": run.started_at,
                "end_time": run.ended_at,
                "source_version": "",
                "lifecycle_stage": "active",
                "artifact_uri": run.artifact_uri,
                "experiment_id": int(run.experiment_id),
            }
        )
        tags = {**run.tags, "mlflow.runName": run.name}
        for table, texts in (("tags", tags), ("params", run.params)):
            rows[table] += [{**of_run, "key": key, "value": value} for key, value in texts.items()]
        metrics = list(dict.fromkeys(map(_values, run.metrics)))
        latest = {key: point for key, *point in sorted(metrics, key=lambda values: values[1:4])}
        columns = ("key", "step", "timestamp", "value", "is_nan")
        rows["metrics"] += [{**of_run, **dict(zip(columns, values, strict=True))} for values in metrics]
        rows["latest_metrics"] += [
            {**of_run, **dict(zip(columns, (key, *point), strict=True))} for key, point in latest.items()
        ]
        used = {"input_uuid": uuid4().hex}
        rows["inputs"].append(
            {
                **used,
                "source_type": "DATASET",
                "source_id": datasets[run.experiment_id, run.data.dataset.name, run.data.dataset.digest],
                "destination_type": "RUN",
                "destination_id": run.run_id,
            }
        )
        rows["input_tags"] += [{**used, "name": tag.key, "value": tag.value} for tag in run.data.tags]
    return rows


def _values(metric: "Metric") -> tuple[str, int, int, float, bool]:
    """Return a metric's key, step, time and value, as SQL has it; of NaN, which it lacks, 0 and a mark."""
    is_nan = math.isnan(metric.value)
    value = 0.0 if is_nan else max(-LARGEST, min(LARGEST, metric.value))
    return metric.key, metric.step, metric.timestamp, value, is_nan


LARGEST = 1.7976931348623157e308
"""What MLflow stores for infinity."""

VIEW = "mlflow.sharedViewState."
"""The start of the experiment tag that holds a view; the rest is the `viewStateShareKey` of its address."""

LONGEST_VIEW = 5000
"""The longest value of an experiment's tag in MLflow 3.7, in characters; 3.17 takes 20,000."""

HELD_OUT_FIRST = ("val", "test", "train")


def view_state(
    search: str, metric: str, maximize: bool, columns: Sequence[str], metrics: Iterable[str]
) -> str:
    """Return a shared view of runs: the best first, in the table some columns, in the charts curves first.

    The fields are those of MLflow's ExperimentPageUIState.tsx and runs-charts.types.ts; tried with 3.17.

    Args:
        search: finds the runs.
        metric: ranks them.
        columns: `metrics` or `params` with a key each, as in `metrics.`val/loss``.
        metrics: all that the runs have. Those of one value per run are folded away.

    Returns:
        The value of the tag; empty if no store would take it.
    """
    names = {key.rpartition("/")[0] for key in metrics}
    curves = [name for name in HELD_OUT_FIRST if name in names]
    sections = [
        {"uuid": name, "name": name, "display": name in curves, "isReordered": False, "deleted": False}
        for name in [*curves, *sorted(names.difference(curves))]
    ]
    best = {"uuid": "best", "type": "BAR", "metricKey": "test/accuracy_best", "metricSectionId": "test"}
    state = {
        "searchFilter": search,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": not maximize,
        "selectedColumns": list(columns),
        "columnOrder": [],
        "columnWidths": {},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": [{**best, "deleted": True, "isGenerated": True}],  # one value beside curves
        "compareRunSections": [{**section, "isGenerated": True} for section in sections],
        "isAccordionReordered": True,
        "viewMaximized": False,
        "runListHidden": False,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    text = json.dumps(state)
    return text if len(text) <= LONGEST_VIEW else ""
