"""What is recorded of a run, read back through MLflow's own client."""

from pathlib import Path

import pytest
import requests
from helpers.records import config, points, start, trained

from lockstep.results.history import Evaluation
from lockstep.tracking.recorded_run import curve, result_of
from lockstep.tracking.store import Store
from lockstep.tracking.tags import REASON


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


@pytest.mark.parametrize("sent", [True, False])
def test_an_interrupted_record_loses_and_doubles_nothing(store, monkeypatch, sent):
    recorded = start(store, config(2))
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


def test_windows_are_means_and_the_last_one_may_be_short(store):
    recorded = start(store, config(4))
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


def test_a_restored_epochs_figures_are_the_last_ones_and_no_point_of_the_curve(store):
    recorded = start(store, config(1))
    measured = {"test": [(0.9, 0.6), (0.5, 0.7), (0.8, 0.75)], "val": [(0.8, 0.5), (0.4, 0.8), (0.6, 0.9)]}
    evaluations = [
        Evaluation(epoch, split, *measured[split][epoch - 1])
        for epoch in (1, 2, 3)
        for split in ("test", "val")
    ]
    history = trained(3, evaluations)
    recorded.record(history)
    history.restored_epoch = 2
    for _ in range(2):  # as after a kill
        recorded.record(history, last=True)
    metrics = store.client.get_run(recorded.run_id).data.metrics
    assert {key: metrics[key] for key in history.summary()} == history.summary()
    assert (metrics["val/loss"], metrics["test/accuracy"], metrics["test/accuracy_best"]) == (0.4, 0.7, 0.7)
    result = result_of(store.client.get_run(recorded.run_id))
    assert curve(store, result, "val/loss") == [(1, 0.8), (2, 0.4), (3, 0.6)]
    assert curve(store, result, "test/accuracy") == [(1, 0.6), (2, 0.7), (3, 0.75)]
    assert sorted(points(store, recorded.run_id, "val/loss")) == [(1, 0.8), (2, 0.4), (3, 0.4), (3, 0.6)]


def test_a_run_whose_last_epoch_is_its_best_has_no_point_more(store):
    recorded = start(store, config(1))
    history = trained(2, [Evaluation(epoch, "val", 1 / epoch, 0.5) for epoch in (1, 2)])
    history.evaluations += [Evaluation(epoch, "test", 1 / epoch, 0.5) for epoch in (1, 2)]
    history.restored_epoch = 2
    recorded.record(history, last=True)
    assert points(store, recorded.run_id, "val/loss") == [(1, 1.0), (2, 0.5)]


def test_more_metrics_than_mlflow_takes_in_one_batch(store):
    recorded = start(store, config(1))
    recorded.record(trained(1700))
    assert points(store, recorded.run_id, "train/loss") == [(i, float(i)) for i in range(1, 1701)]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_an_ending_is_set_with_its_reason(store, status):
    recorded = start(store, config())
    recorded.end(status, {REASON: "because"})
    run = store.client.get_run(recorded.run_id)
    assert (run.info.status, run.data.tags["lockstep.reason"]) == (status, "because")
    assert run.info.end_time >= run.info.start_time


def test_artifacts_lie_beside_the_store(store, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("text")
    recorded = start(store, config())
    recorded.artifacts(tmp_path)
    folder = store.uri.removeprefix("sqlite:///").removesuffix("/mlflow.db")
    uri = store.client.get_run(recorded.run_id).info.artifact_uri
    assert uri == f"file://{folder}/artifacts/{recorded.run_id}/artifacts"
    with open(f"{uri.removeprefix('file://')}/sub/a.txt") as kept:
        assert kept.read() == "text"


@pytest.mark.parametrize("kept", [None, b""], ids=["lost", "cut"])
def test_an_artifact_counts_once_the_store_has_it(store, tmp_path, monkeypatch, kept):
    """A proxy may answer an upload with a page of its own, and 200: MLflow's client is content with that."""
    names = ["a.txt", "sub/b.txt", "sub/c.txt", "sub/deep/d.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    recorded = start(store, config())
    log_artifact, sent = recorded.client.log_artifact, []

    def every_other(run_id, path, above=None):
        sent.append(Path(path).name)
        if len(sent) % 2:
            log_artifact(run_id, path, above)
        elif kept is not None:
            folder = Path(store.client.get_run(run_id).info.artifact_uri.removeprefix("file://"), above or "")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(path).name).write_bytes(kept)

    monkeypatch.setattr(recorded.client, "log_artifact", every_other)
    for lost in ("b.txt", "d.txt"):
        with pytest.raises(
            requests.ConnectionError, match=rf"{lost} was sent, but the store does not have it"
        ):
            recorded.artifacts(tmp_path)
    recorded.artifacts(tmp_path)
    assert sent == ["a.txt", "b.txt", "c.txt", "d.txt", "b.txt", "d.txt", "d.txt"]
    stored = recorded.download(tmp_path)
    assert [(stored / name).read_text() for name in names] == names
    monkeypatch.setattr(recorded.client, "log_artifact", lambda *_: None)
    with pytest.raises(requests.ConnectionError, match=r"e.txt was sent"):
        (tmp_path / "e.txt").touch()
        recorded.artifact(tmp_path / "e.txt")
