"""What reaches an MLflow store, read back through MLflow's own client."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lockstep import tracking
from lockstep.config import (
    DigitsConfig,
    LogRegConfig,
    Refused,
    RunConfig,
    SGDConfig,
    TrackingConfig,
    TrainerConfig,
)
from lockstep.data import Dataset
from lockstep.tracking import PRUNED_AT, REASON, Store
from lockstep.train import Evaluation, History


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.fixture(scope="module")
def dataset():
    x = torch.zeros(6, 4)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    return Dataset("tiny", x, y, x[:3], y[:3], (2, 2), ("a", "b", "c"), "0123456789abcdef" * 2, "made up")


def config(log_every=50, experiment="tiny"):
    return RunConfig(
        model=LogRegConfig(name="logreg"),
        optim=SGDConfig(name="sgd", lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0),
        data=DigitsConfig(name="digits", batch_size=2, drop_last=True, val_size=0, shuffle_seed=0),
        trainer=TrainerConfig(epochs=2, device="cpu", precision="float32", log_every=log_every),
        tracking=TrackingConfig(uri="postgresql://me:secret@host/db", experiment=experiment, pictures="all"),
        seed=0,
    )


def trained(iterations, evaluations=()):
    """Epochs of one iteration, that of iteration t at time 1000 t."""
    return History(
        np.arange(1.0, iterations + 1),
        np.full(iterations, 0.5),
        list(evaluations),
        iterations,
        seconds=1.5,
        marks=[(t, 1000 * t) for t in range(1, iterations + 1)],
    )


def points(store, run_id, key):
    history = store.client.get_metric_history(run_id, key)
    return [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)]


def test_a_run_has_its_tags_params_and_data_set(store, dataset):
    parent = store.start_sweep("tiny", "a sweep", ["seed=0,1"], "token 1")
    recorded = store.start_run(config(), dataset, "a run", ["seed=0"], parent.run_id, "token")
    recorded.record(trained(1))
    run = store.client.get_run(recorded.run_id)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "a run"
    tags = run.data.tags
    assert tags["lockstep.kind"] == "run"
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert tags["lockstep.overrides"] == "seed=0"
    assert tags["lockstep.run_key"] == config().run_key(dataset.digest)
    assert store.client.get_run(parent.run_id).data.tags["lockstep.kind"] == "sweep"
    assert run.data.params == {
        "data": "digits",
        "data.batch_size": "2",
        "data.drop_last": "true",
        "data.shuffle_seed": "0",
        "data.val_size": "0",
        "model": "logreg",
        "optim": "sgd",
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
        "trainer.device": "cpu",
        "trainer.epochs": "2",
        "trainer.log_every": "50",
        "trainer.precision": "float32",
    }
    [logged] = run.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("tiny", dataset.digest)
    experiment = store.client.get_experiment_by_name("tiny")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


@pytest.mark.parametrize("sent", [True, False])
def test_an_interrupted_record_loses_and_doubles_nothing(store, dataset, monkeypatch, sent):
    recorded = store.start_run(config(log_every=2), dataset, "interrupted", [], None, "token")
    log_batch = recorded.client.log_batch

    def interrupted(*args, **kwargs):
        if sent:
            log_batch(*args, **kwargs)
        raise KeyboardInterrupt

    evaluations = [Evaluation(4, "test", 0.25, 0.9)]
    monkeypatch.setattr(recorded.client, "log_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recorded.record(trained(4, evaluations))
    monkeypatch.setattr(recorded.client, "log_batch", log_batch)
    recorded.record(trained(6, evaluations))
    assert points(store, recorded.run_id, "train/loss") == [(2, 1.5), (4, 3.5), (6, 5.5)]
    assert points(store, recorded.run_id, "test/accuracy") == [(4, 0.9)]
    assert store.client.get_run(recorded.run_id).data.params["model"] == "logreg"


def test_a_run_that_another_process_started_goes_on_and_no_point_stands_twice(store, dataset):
    run_config = config(log_every=2)
    first = store.start_run(run_config, dataset, "resumed", ["a=1"], None, "its own token")
    first.record(trained(4, [Evaluation(4, "test", 0.25, 0.9)]))
    first.end("KILLED")
    assert store.find("tiny", "its own token") == first.run_id
    assert store.find("tiny", "no token") is None
    again = store.resume_run(first.run_id, run_config, dataset)
    assert store.client.get_run(first.run_id).info.status == "RUNNING"
    again.record(trained(5, [Evaluation(4, "test", 0.25, 0.9), Evaluation(5, "test", 0.5, 0.8)]), last=True)
    again.end("FINISHED")
    assert points(store, first.run_id, "train/loss") == [(2, 1.5), (4, 3.5), (5, 5.0)]
    assert points(store, first.run_id, "test/loss") == [(4, 0.25), (5, 0.5)]
    run = store.client.get_run(first.run_id)
    assert (run.info.status, len(run.inputs.dataset_inputs)) == ("FINISHED", 1)
    assert store.is_there(first.run_id)
    store.client.delete_run(first.run_id)
    assert not store.is_there(first.run_id)
    assert not store.is_there("0" * 32)


def test_a_store_whose_making_was_cut_short_is_made_anew(tmp_path):
    # As a kill in the midst of it leaves them.
    for name in ("mlflow.db", "mlflow.db.part", "mlflow.db.part-journal"):
        (tmp_path / name).write_bytes(b"" if name == "mlflow.db" else b"half a store")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    assert store.is_empty("anything")
    assert {path.name for path in tmp_path.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.lock"}


def test_a_result_is_the_latest_that_need_not_be_trained_again(store, dataset):
    run_config = config(experiment="results")
    assert store.is_empty("results")
    key = run_config.run_key(dataset.digest)
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
        recorded = store.start_run(run_config, dataset, "a result", [], None, "token")
        recorded.end(status, {tag: value} if value else {})
        ids[status, value] = recorded.run_id
        found = store.result("results", key)
        expected = ids.get(("FINISHED", "")) or ids.get(("FAILED", "diverged: at once"))
        assert (found and found.info.run_id) == expected
    assert store.result("results", "another key") is None
    assert not store.is_empty("results")


def test_windows_are_means_and_the_last_one_may_be_short(store, dataset):
    run_config = config(log_every=4)
    recorded = store.start_run(run_config, dataset, "windows", [], None, "token")
    recorded.record(trained(6))
    assert points(store, recorded.run_id, "train/loss") == [(4, 2.5)]
    evaluations = [
        Evaluation(6, "test", 0.7, 0.8),
        Evaluation(9, "test", 0.6, 0.75),
        Evaluation(9, "val", 0.5, 0.9),
    ]
    recorded.record(trained(9, evaluations), last=True)
    assert points(store, recorded.run_id, "train/loss") == [(4, 2.5), (8, 6.5), (9, 9.0)]
    assert points(store, recorded.run_id, "train/accuracy") == [(4, 0.5), (8, 0.5), (9, 0.5)]
    assert points(store, recorded.run_id, "test/accuracy") == [(6, 0.8), (9, 0.75)]
    assert points(store, recorded.run_id, "test/loss") == [(6, 0.7), (9, 0.6)]
    assert points(store, recorded.run_id, "val/accuracy") == [(9, 0.9)]
    assert points(store, recorded.run_id, "test/accuracy_best") == [(9, 0.8)]
    times = {p.step: p.timestamp for p in store.client.get_metric_history(recorded.run_id, "train/loss")}
    assert times == {4: 4000, 8: 8000, 9: 9000}
    assert points(store, recorded.run_id, "time/train_seconds") == [(9, 1.5)]


def test_more_metrics_than_mlflow_takes_in_one_batch(store, dataset):
    run_config = config(log_every=1)
    recorded = store.start_run(run_config, dataset, "many", [], None, "token")
    recorded.record(trained(1700))
    assert points(store, recorded.run_id, "train/loss") == [(i, float(i)) for i in range(1, 1701)]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_an_ending_is_set_with_its_reason(store, dataset, status):
    recorded = store.start_run(config(), dataset, "ends", [], None, "token")
    recorded.end(status, {REASON: "because"})
    run = store.client.get_run(recorded.run_id)
    assert (run.info.status, run.data.tags["lockstep.reason"]) == (status, "because")
    assert run.info.end_time >= run.info.start_time


def test_artifacts_lie_beside_the_store(store, dataset, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("text")
    recorded = store.start_run(config(), dataset, "artifacts", [], None, "token")
    recorded.artifacts(tmp_path)
    folder = store.uri.removeprefix("sqlite:///").removesuffix("/mlflow.db")
    uri = store.client.get_run(recorded.run_id).info.artifact_uri
    assert uri == f"file://{folder}/artifacts/{recorded.run_id}/artifacts"
    with open(f"{uri.removeprefix('file://')}/sub/a.txt") as kept:
        assert kept.read() == "text"


def test_no_password_reaches_the_store(store, dataset):
    overrides = ["tracking.uri=postgresql://me:secret@host/db"]
    recorded = store.start_run(config(), dataset, "discreet", overrides, None, "token")
    run = store.client.get_run(recorded.run_id)
    assert "secret" not in str(run.to_dictionary())
    assert run.data.tags["lockstep.overrides"] == "tracking.uri=postgresql://***@host/db"


def test_threads_that_make_one_experiment_at_once_get_the_same(store):
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(store.experiment_id, ["contended"] * 8))
    assert len(ids) == 1


def test_a_deleted_experiment_is_refused_with_the_remedy(store):
    made = store.experiment_id("gone")
    store.client.delete_experiment(made)
    with pytest.raises(Refused, match=rf"tracking.experiment=gone: was deleted.*restore -x {made}"):
        store.experiment_id("gone")


def test_an_impossible_experiment_is_refused(store):
    with pytest.raises(Refused, match=r"tracking.experiment=x+: .*exceeds the maximum length"):
        store.experiment_id("x" * 501)


def test_a_locked_store_is_refused(tmp_path, monkeypatch):
    # Found by ourselves at once: MLflow would retry for minutes.
    monkeypatch.setattr(tracking, "_answering", lambda uri: pytest.fail("MLflow was asked"))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0.1))
    holder = connect(tmp_path / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(Refused, match="database is locked"):
            Store(f"sqlite:///{tmp_path}/mlflow.db")
    finally:
        holder.close()


def test_how_to_see_it(store, monkeypatch):
    page = "then open http://127.0.0.1:5000/#/experiments/7/runs"
    assert store.ui("7") == f"mlflow ui --backend-store-uri {store.uri}, {page}"
    monkeypatch.setenv("LOCKSTEP_ROOT", "/somewhere")
    monkeypatch.setattr(store, "uri", "sqlite:////somewhere/outputs/mlflow.db")
    assert store.ui("7") == f"make -C /somewhere ui, {page}"
    monkeypatch.chdir("/")
    monkeypatch.setenv("LOCKSTEP_ROOT", "/")
    monkeypatch.setattr(store, "uri", "sqlite:////outputs/mlflow.db")
    assert store.ui("7") == f"make ui, {page}"
    monkeypatch.setattr(store, "uri", "http://me:secret@127.0.0.1:5000/")
    assert store.ui("7") == "open http://***@127.0.0.1:5000/#/experiments/7/runs"
