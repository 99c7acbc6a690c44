"""What reaches an MLflow store, read back through MLflow's own client."""

from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from helpers.records import config, described, points, start, tiny, trained

from lockstep.config.errors import Refused
from lockstep.recovery.description import Description
from lockstep.results.history import Evaluation
from lockstep.tracking import links, stored
from lockstep.tracking.store import Store
from lockstep.tracking.tags import PRUNED_AT, REASON, RUN_KEY


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture(scope="module")
def dataset():
    return tiny()


def test_a_run_has_its_tags_params_and_data_set(store, dataset):
    parent = store.start(Description("sweep", "a sweep", ["seed=0,1"], store.address, "tiny"), None)
    recorded = start(store, config(), "a run", ["seed=0"], parent.run_id)
    recorded.record(trained(1))
    run = store.client.get_run(recorded.run_id)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "a run"
    tags = run.data.tags
    assert tags["lockstep.kind"] == "run"
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert tags["lockstep.overrides"] == "seed=0"
    assert tags["lockstep.run_key"] == config().run_key(dataset.description.digest)
    assert store.client.get_run(parent.run_id).data.tags["lockstep.kind"] == "sweep"
    assert run.data.params == {
        "data": "digits",
        "data.augment.flip": "false",
        "data.augment.shift": "0",
        "data.batch_size": "2",
        "data.drop_last": "true",
        "data.fold": "null",
        "data.folds": "null",
        "data.scale": "auto",
        "data.shuffle_seed": "0",
        "data.val_size": "0",
        "model": "logreg",
        "optim": "sgd",
        "optim.clip_norm": "null",
        "optim.lr": "0.1",
        "optim.momentum": "0.9",
        "optim.nesterov": "false",
        "optim.schedule": "constant",
        "optim.warmup_epochs": "null",
        "optim.weight_decay": "0.0",
        "seed": "0",
        "tracking.experiment": "tiny",
        "tracking.pictures": "all",
        "trainer.checkpoint_seconds": "10.0",
        "trainer.class_weights": "null",
        "trainer.device": "cpu",
        "trainer.epochs": "2",
        "trainer.label_smoothing": "0.0",
        "trainer.log_every": "50",
        "trainer.monitor": "val/loss",
        "trainer.patience": "null",
        "trainer.threads": "1",
        "trainer.precision": "float32",
    }
    [logged] = run.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("tiny", dataset.description.digest)
    experiment = store.client.get_experiment_by_name("tiny")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_run_that_another_process_started_goes_on_and_no_point_stands_twice(store, dataset):
    run_config = config(log_every=2)
    first = start(store, run_config, "resumed", ["a=1"], token="its own token")
    first.record(trained(4, [Evaluation(4, "test", 0.25, 0.9)]))
    first.end("KILLED")
    assert store.find("tiny", "its own token") == first.run_id
    assert store.find("tiny", "no token") is None
    again = store.resume(first.run_id, described(store, run_config, "resumed", ["a=1"]), 4)
    assert store.client.get_run(first.run_id).info.status == "RUNNING"
    again.record(trained(5, [Evaluation(4, "test", 0.25, 0.9), Evaluation(5, "test", 0.5, 0.8)]), last=True)
    again.end("FINISHED")
    assert points(store, first.run_id, "train/loss") == [(2, 1.5), (4, 3.5), (5, 5.0)]
    assert points(store, first.run_id, "test/loss") == [(4, 0.25), (5, 0.5)]
    run = store.client.get_run(first.run_id)
    assert (run.info.status, len(run.inputs.dataset_inputs)) == ("FINISHED", 1)
    assert store.is_active(first.run_id)
    store.client.delete_run(first.run_id)
    assert not store.is_active(first.run_id)
    assert not store.is_active("0" * 32)


def test_a_result_is_the_latest_that_need_not_be_trained_again(store, dataset):
    run_config = config(experiment="results")
    assert not store.has_runs("results")
    key = run_config.run_key(dataset.description.digest)
    ids = {}
    for status, tag, value in (
        ("KILLED", REASON, ""),
        ("FINISHED", PRUNED_AT, "4"),
        ("FAILED", REASON, "OSError: no room"),
        ("FAILED", REASON, "diverged: at once"),
        ("FINISHED", REASON, ""),
        ("KILLED", REASON, ""),
        ("FINISHED", PRUNED_AT, "1"),
    ):
        recorded = start(store, run_config, "a result")
        recorded.end(status, {tag: value} if value else {})
        ids[status, value] = recorded.run_id
        found = stored.results(store, "results", [key]).get(key)
        expected = ids.get(("FINISHED", "")) or ids.get(("FAILED", "diverged: at once"))
        assert (found and found.info.run_id) == expected
    assert stored.results(store, "results", ["another key"]) == {}
    assert store.has_runs("results")


def test_many_results_are_found_in_pages(store, monkeypatch):
    """Not by one query for each: 1,000 took 52 s. This is for servers; an SQLite file is read directly."""
    monkeypatch.setattr(stored._mlflow_tables, "runs_with_tag", lambda *_: None)
    monkeypatch.setattr(stored, "PAGE", 4)
    monkeypatch.setattr(stored, "KEYS_PER_PAGE", 2)
    experiment_id = store.experiment_id("many")
    ids = {}
    for number in range(10):
        run = store.client.create_run(experiment_id, number + 1, {RUN_KEY: f"key {number}"})
        store.client.set_terminated(run.info.run_id)
        ids[f"key {number}"] = run.info.run_id
    asked = []
    search = store.client.search_runs
    monkeypatch.setattr(store.client, "search_runs", lambda *a, **k: asked.append(a[1]) or search(*a, **k))

    def found(*numbers):
        asked.clear()
        keys = [f"key {number}" for number in numbers]
        by_key = stored.results(store, "many", keys)
        assert {key: run.info.run_id for key, run in by_key.items()} == {
            key: ids[key] for key in keys if key in ids
        }
        return [text.partition("`")[2].partition("`")[2] for text in asked]

    assert found(9, 8, 7) == [" LIKE '%'"]
    assert found(3) == [" = 'key 3'"]
    assert found(*range(10)) == [" LIKE '%'", " LIKE '%'", " = 'key 0'", " = 'key 1'"]
    assert found(*range(20))[:3] == [" LIKE '%'"] * 3
    assert len(asked) == 3  # there is no fourth page
    # Pages that have few of them are not read to the end.
    assert found(5, 11, 12) == [" LIKE '%'", " = 'key 5'", " = 'key 11'", " = 'key 12'"]


def test_no_password_reaches_the_store(store, dataset):
    overrides = ["tracking.uri=postgresql://me:secret@host/db"]
    recorded = start(store, config(), "discreet", overrides)
    run = store.client.get_run(recorded.run_id)
    assert "secret" not in str(run.to_dictionary())
    assert run.data.tags["lockstep.overrides"] == "tracking.uri=postgresql://***@host/db"


@pytest.mark.parametrize(("length", "stored"), [(250, 250), (251, 250), (9000, 250)])
def test_a_name_and_tags_that_a_database_would_refuse_are_cut(store, dataset, monkeypatch, length, stored):
    create_run = mlflow.MlflowClient.create_run

    def as_postgresql(client, experiment_id, tags, run_name):
        assert len(run_name) <= 250
        assert max(map(len, tags.values())) <= 8000
        return create_run(client, experiment_id, tags=tags, run_name=run_name)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", as_postgresql)
    monkeypatch.setattr(store, "uri", "postgresql://host/db")
    recorded = start(store, config(), "x" * length, ["x" * length])
    run = store.client.get_run(recorded.run_id)
    assert len(run.info.run_name) == stored
    assert run.info.run_name.endswith("…") == (length > 250)
    assert len(run.data.tags["lockstep.overrides"]) == min(length, 8000)


def test_threads_that_make_one_experiment_at_once_get_the_same(store):
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(store.experiment_id, ["contended"] * 8))
    assert len(ids) == 1


def test_a_deleted_experiment_is_refused_with_the_remedy(store):
    made = store.experiment_id("gone")
    store.client.delete_experiment(made)
    with pytest.raises(Refused, match=rf"tracking.experiment=gone: was deleted.*restore -x {made}"):
        store.experiment_id("gone")


def test_an_experiment_deleted_while_a_sweep_trains_is_named_with_the_remedy(store):
    deleted = config(experiment="deleted meanwhile")
    start(store, deleted)
    made = store.experiment_id("deleted meanwhile")
    store.client.delete_experiment(made)
    with pytest.raises(Refused, match=rf"experiment=deleted meanwhile: was deleted.*restore -x {made}"):
        start(store, deleted, token="another")


def test_an_impossible_experiment_is_refused(store):
    with pytest.raises(Refused, match=r"tracking.experiment=x+: .*exceeds the maximum length"):
        store.experiment_id("x" * 501)


def test_how_to_see_it(store, monkeypatch):
    def said(view=""):
        return links.how_to_open(store.uri, links.view_link(store.uri, "7", view))

    training = "#/experiments/7/runs?workflowType=machine_learning"
    page = f"then open http://127.0.0.1:5000/{training}"
    assert said() == f"mlflow ui --backend-store-uri {store.uri} --port 5000, {page}"
    monkeypatch.setenv("LOCKSTEP_ROOT", "/somewhere")
    monkeypatch.setattr(store, "uri", "sqlite:////somewhere/outputs/mlflow.db")
    assert said() == f"make -C /somewhere ui, {page}"
    monkeypatch.chdir("/")
    monkeypatch.setenv("LOCKSTEP_ROOT", "/")
    monkeypatch.setattr(store, "uri", "sqlite:////outputs/mlflow.db")
    assert said() == f"make ui, {page}"
    assert said("key") == f"make ui, {page}&viewStateShareKey=key"
    monkeypatch.setattr(store, "uri", "http://me:secret@127.0.0.1:5000/")
    assert said() == f"open http://***@127.0.0.1:5000/{training}"
