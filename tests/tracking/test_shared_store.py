"""A store that several machines share: an MLflow server on PostgreSQL. Each clone stands for a machine: its
outputs folder, and so its claims, are its own."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import mlflow
import pytest
from helpers import postgres, records
from helpers.faults import EPOCH, contents, read_until, survive
from helpers.postgres import Postgres
from helpers.processes import until
from helpers.searches import TWELVE, study_of
from helpers.servers import QuickServer, Server
from sqlalchemy import create_engine, text

from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store

pytestmark = pytest.mark.skipif(bool(postgres.MISSING), reason=postgres.MISSING)

SWEEP = (
    *(
        "-m",
        "data=digits",
        "data.batch_size=2",
        "model=logreg",
        "trainer.epochs=120",
        "trainer.log_every=1000",
    ),
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
def server(request, tmp_path_factory, database, store):
    kind = Server if request.config.getoption("--faults") else QuickServer
    server = kind(tmp_path_factory.mktemp("server"), database.uri)
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


def best(runs):
    """The name of the run with the best test accuracy."""
    return max(runs, key=lambda name: runs[name]["metrics"]["test/accuracy"][-1][1])


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
    assert sweeps(server, "digits") == [("FINISHED", best(want), want)] * 2


@pytest.mark.faults
@pytest.mark.mnist
def test_kills_on_two_machines_change_nothing(make_clone, server, kills):
    sweep = ("-m", "optim.lr=0.1,0.01", "trainer.epochs=5", "trainer.checkpoint_seconds=0.5")
    alone, machines = make_clone(), [make_clone() for _ in range(2)]
    code, out, err = alone.quick(*sweep)
    assert (code, err) == (0, "")
    with ThreadPoolExecutor(2) as both:
        n_kills, lines = max(2, kills // 25), out.count(EPOCH)
        done = [
            both.submit(survive, machine, sweep, n_kills, lines, seed, {"MLFLOW_TRACKING_URI": server.uri})
            for seed, machine in enumerate(machines)
        ]
    assert [each.result() for each in done] == [None] * 2
    want = contents(alone.store, "mnist")
    [parent] = [name for name, run in want.items() if run["tags"]["lockstep.kind"] == "sweep"]
    del want[parent]
    assert sweeps(server, "mnist") == [("FINISHED", best(want), want)] * 2


@pytest.mark.faults
def test_a_database_and_a_server_that_are_away_for_a_while(make_clone, database, server):
    sweep = (*SWEEP, "tracking.experiment=away")
    shared = {"MLFLOW_TRACKING_URI": server.uri}
    started = [make_clone().start(*sweep, extra=shared) for _ in range(2)]
    for process in started:
        read_until(process, EPOCH)
    for away in (database, server):
        away.stop()
        time.sleep(5)
        away.start()
        time.sleep(5)
    for process in started:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert err.count("the store can't be written") <= 2
    alone = make_clone()
    assert alone.quick(*sweep)[0] == 0
    want = contents(alone.store, "away")
    del want["lr, 2 runs"]
    assert sweeps(server, "away") == [("FINISHED", best(want), want)] * 2


@pytest.mark.faults
def test_two_machines_search_at_the_same_time_and_one_is_killed_half_way(make_clone, server):
    search = (*TWELVE, "trainer.epochs=400", "tracking.experiment=search")
    shared = {"MLFLOW_TRACKING_URI": server.uri}
    here, there = make_clone(), make_clone()
    killed = here.start(*search, extra=shared)
    read_until(killed, EPOCH)
    other = there.start(*search, extra=shared)
    read_until(other, EPOCH)
    killed.kill()
    killed.communicate(timeout=60)
    assert killed.returncode == -9, "the search had ended before it was killed"
    _, err = other.communicate(timeout=600)
    assert (other.returncode, err) == (0, "")
    code, _, err = here.quick(*search, extra=shared)
    assert (code, err) == (0, "")
    for machine, (status, winner, members) in zip((there, here), sweeps(server, "search"), strict=True):
        assert status == "FINISHED"
        assert {run["status"] for run in members.values()} == {"FINISHED"}
        assert members[winner]["tags"]["lockstep.pruned_at"] is None
        outcomes = [trial.user_attrs["outcome"] for trial in study_of(machine).trials]
        by_number = sorted(members.items(), key=lambda member: int(member[0].partition(":")[0]))
        assert len(outcomes) == len(by_number) == 12
        for outcome, (_, run) in zip(outcomes, by_number, strict=True):
            told = {key: value for key, value in outcome["metrics"].items() if key not in run["timed"]}
            assert told == {key: run["metrics"][key][-1][1] for key in told}


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
