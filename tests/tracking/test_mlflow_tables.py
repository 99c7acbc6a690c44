"""Runs read from a store's tables: as MLflow's client reads them."""

import math
import shutil
import sqlite3
from contextlib import closing

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from lockstep.tracking import _mlflow_tables
from lockstep.tracking.store import Store


@pytest.fixture(scope="module")
def filled(tmp_path_factory, empty_store):
    """Return a store with 6 runs of which one is deleted and one has nothing, and their ids."""
    store = Store(f"sqlite:///{shutil.copy(empty_store, tmp_path_factory.mktemp('filled'))}")
    experiment_id, ids = store.known_id("tiny"), []
    for number in range(6):
        ids.append(store.client.create_run(experiment_id, start_time=100 - number).info.run_id)
        if number == 5:
            break
        values = {"a": 0.5, "b": math.inf, "c": math.nan}
        metrics = [Metric(key, value, 10 + step, step) for key, value in values.items() for step in (1, 3)]
        tags = [RunTag("key", str(number // 2)), RunTag("note", "ünïcode\nlines")]
        store.client.log_batch(ids[-1], metrics, [Param("z", "1"), Param("a.b", "null")], tags)
        data = Dataset(f"data {number % 2}", "digest", "code", "{}", "schema", "profile")
        store.client.log_inputs(ids[-1], [DatasetInput(data, [InputTag("mlflow.data.context", "x")])])
    store.client.set_terminated(ids[1], "FAILED", end_time=200)
    store.client.delete_run(ids[2])
    return store, ids


def contents(run):
    datasets = [dict(given.dataset) for given in run.inputs.dataset_inputs]
    metrics = {key: "nan" if math.isnan(value) else value for key, value in run.data.metrics.items()}
    return dict(run.info), metrics, list(run.data.params.items()), run.data.tags, datasets


def test_runs_are_as_the_client_reads_them(filled, monkeypatch):
    store, ids = filled
    monkeypatch.setattr(_mlflow_tables, "AT_ONCE", 2)
    expected = {run.info.run_id: contents(run) for run in store.search([store.known_id("tiny")], "")}
    assert set(expected) == {*ids} - {ids[2]}
    read = _mlflow_tables.runs_of_ids(store.uri, [*ids, ids[0], "no such run"])
    assert len(read) == 5
    assert {run.info.run_id: contents(run) for run in read} == expected


def test_runs_with_a_tag_are_found_the_latest_first(filled):
    store, ids = filled
    found = _mlflow_tables.runs_with_tag(store.uri, store.known_id("tiny"), "key", ["1", "0", "none"])
    assert [run.info.run_id for run in found] == [ids[0], ids[1], ids[3]]
    other = store.known_id("another")
    assert _mlflow_tables.runs_with_tag(store.uri, other, "key", ["0"]) == []


def test_stores_with_other_tables_are_left_to_the_client(filled):
    store, ids = filled
    assert _mlflow_tables.runs_of_ids("http://127.0.0.1:1", ids) is None
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        [(schema,)] = connection.execute("SELECT version_num FROM alembic_version")
        connection.execute("UPDATE alembic_version SET version_num = 'new'")
        assert _mlflow_tables.runs_of_ids(store.uri, ids) is None
        assert _mlflow_tables.runs_with_tag(store.uri, store.known_id("tiny"), "key", ["0"]) is None
        connection.execute("UPDATE alembic_version SET version_num = ?", [schema])
