"""What is private in MLflow: the columns in which an SQLite store keeps absolute artifact locations, and the
format of a view that is shared in its UI.

MLflow has no public way to change locations, so a project that was moved would be cut off from its artifacts.
The columns have been the same since MLflow 3.0; `SCHEMAS` are those of 3.7 to 3.17, read in its migrations.
Nor has it a public way to say what its UI shows first: it opens with neither metrics nor params, and with its
charts in alphabetical order.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

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
