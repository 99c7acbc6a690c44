"""A store that several machines share: an MLflow server on PostgreSQL. Each clone stands for a machine: its
outputs folder, and so its claims, are its own."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import mlflow
import pytest
from helpers import postgres, records
from helpers.faults import EPOCH, contents, read_until
from helpers.postgres import Postgres
from helpers.processes import until
from helpers.servers import QuickServer
from sqlalchemy import create_engine, text

from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store

pytestmark = pytest.mark.skipif(bool(postgres.MISSING), reason=postgres.MISSING)

SWEEP = (
    *("-m", "data=digits", "model=logreg", "trainer.epochs=1500", "trainer.log_every=1000"),
    *("optim.lr=0.01,0.001", "hydra.launcher.n_jobs=1", "tracking.pictures=none"),
)


@pytest.fixture(scope="module")
def database():
    database = Postgres()
    database.start()
    yield database
    database.remove()


@pytest.fixture(scope="module")
def store(database):
    """The database as a store, opened without a server; the first to open it makes its tables."""
    return Store(database.uri)


@pytest.fixture(scope="module")
def server(tmp_path_factory, database, store):
    server = QuickServer(tmp_path_factory.mktemp("server"), database.uri)
    server.start()
    yield server
    server.stop()


def sweeps(server, experiment):
    """The sweeps in an experiment: of each its status, its winner, and what its members hold, by name."""
    client = mlflow.MlflowClient(server.uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    held = contents(server.uri, experiment, unique=False, served=server.artifacts)
    runs = {run.info.run_id: (run.info.run_name, of) for run, of in zip(found, held, strict=True)}
    recorded = []
    for run in found:
        if run.data.tags["lockstep.kind"] == "sweep":
            with open(client.download_artifacts(run.info.run_id, "members.json")) as file:
                members = json.load(file)["runs"]
            best = run.data.tags["lockstep.winner"]
            assert run.data.tags["lockstep.winner_runs"] == best
            assert best in members
            recorded.append((run.info.status, runs[best][0], dict(runs[member] for member in members)))
    return recorded


def test_two_machines_record_the_same_sweep_and_one_is_killed_half_way(make_clone, server):
    alone, here, there = make_clone(), make_clone(), make_clone()
    code, _, err = alone.quick(*SWEEP)
    assert (code, err) == (0, "")
    want = contents(alone.store, "digits")
    del want["lr, 2 runs"]
    shared = {"MLFLOW_TRACKING_URI": server.uri}
    killed = here.start(*SWEEP, extra=shared)
    read_until(killed, EPOCH)
    other = there.start(*SWEEP, extra=shared)
    read_until(other, EPOCH)
    killed.kill()
    killed.communicate(timeout=60)
    assert killed.returncode == -9, "the sweep had ended before it was killed"
    _, err = other.communicate(timeout=240)
    assert (other.returncode, err) == (0, "")
    code, _, err = here.quick(*SWEEP, extra=shared)
    assert (code, err) == (0, "")
    assert sweeps(server, "digits") == [("FINISHED", "lr=0.01", want)] * 2


@contextmanager
def meanwhile(database, statement, **values):
    """Commit a statement in a transaction that another one, begun in the block, waits for."""
    engine = create_engine(database.uri)
    with engine.begin() as connection:
        connection.execute(text(statement), values)
        with ThreadPoolExecutor(1) as other:
            yield other
            waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            with engine.connect() as watching:
                until(lambda: watching.scalar(waiting))
            connection.commit()
    engine.dispose()


def test_two_commands_may_add_the_same_data_set_at_the_same_moment(database, store):
    config = records.config(experiment="data sets")
    data = records.tiny().description
    row = {"id": store.experiment_id("data sets"), "name": data.name, "digest": data.digest}
    adding = (
        "INSERT INTO datasets (experiment_id, name, digest, dataset_uuid, dataset_source_type,"
        " dataset_source) VALUES (:id, :name, :digest, 'other', 'code', '')"
    )
    with meanwhile(database, adding, **row) as other:
        started = other.submit(records.start, store, config)
    [used] = store.client.get_run(started.result().run_id).inputs.dataset_inputs
    assert (used.dataset.digest, used.dataset.source) == (data.digest, "")


def test_two_commands_may_set_the_same_tag_at_the_same_moment(database, store):
    run = Recorded(store.client, store.client.create_run(store.experiment_id("tags")).info.run_id)
    setting = "INSERT INTO tags (run_uuid, key, value) VALUES (:run, 'color', 'red')"
    with meanwhile(database, setting, run=run.run_id) as other:
        tagged = other.submit(run.tag, {"color": "blue", "note": "ours"})
    tagged.result()
    tags = store.client.get_run(run.run_id).data.tags
    assert (tags["color"], tags["note"]) == ("blue", "ours")
