"""News of runs, in whatever order → outcomes and the way to the store."""

import numpy as np
import pytest
from helpers.configs import LOGREG, job, with_pictures
from helpers.records import recorded

from lockstep.pictures import run_pictures
from lockstep.recovery.journal import Ended
from lockstep.results.history import Epoch, Evaluation
from lockstep.sweep.ledger import Recorder, Sweep
from lockstep.sweep.session import carry_out, run_names
from lockstep.terminal.progress import Progress
from lockstep.tracking import uploader as delivery_module
from lockstep.tracking.run import RecordedRun
from lockstep.tracking.store import Store
from lockstep.tracking.uploader import Delivery


def epoch(iteration, loss=1.0, diverged=False):
    evaluations = () if diverged else (Evaluation(iteration, "test", loss, 0.5),)
    return Epoch(np.full(2, loss), np.full(2, 0.5), evaluations, 0.1, diverged, at=1000 * iteration)


@pytest.fixture
def delivery(uri):
    with Delivery(Store(uri)) as delivery:
        yield delivery


@pytest.fixture
def recorder(uri, delivery):
    jobs = [with_pictures(job(uri, f"seed={s}", epochs=6, model=LOGREG, seed=s), "none") for s in range(3)]
    sweep = Sweep("sweep of 3 runs", ["seed=0,1,2"], "digits", ["a key"])
    recorder = Recorder(delivery._store, sweep, delivery, Progress(3, is_sweep=True))
    assert [recorder.add(job, name) for job, name in zip(jobs, run_names(jobs), strict=True)] == [0, 1, 2]
    assert recorder.take_up(recorder.waiting()) == [0, 1, 2]
    return recorder


def test_runs_appear_with_their_first_news_and_those_under_way_are_killed_at_the_end(recorder, delivery, uri):
    recorder.hear(2, epoch(2))
    recorder.hear(0, epoch(2))
    recorder.hear(2, Ended())
    assert delivery.wait() == []
    assert recorded(uri) == {
        "sweep of 3 runs": ("RUNNING", None),
        "seed=0": ("RUNNING", None),
        "seed=2": ("FINISHED", None),
    }
    assert recorder.waiting() == [0, 1]
    recorder.close("KILLED")
    assert delivery.wait() == []
    assert recorded(uri) == {
        "sweep of 3 runs": ("KILLED", None),
        "seed=0": ("KILLED", None),
        "seed=2": ("FINISHED", None),
    }
    assert [outcome.name for outcome in recorder.outcomes] == ["seed=2"]


def points(recorder, name, key):
    client = recorder._store.client
    [run] = client.search_runs(["1"], f"attributes.run_name = '{name}'")
    return sorted((p.step, p.timestamp) for p in client.get_metric_history(run.info.run_id, key))


def test_metrics_go_to_the_store_at_most_once_in_a_while_and_all_by_the_end(recorder, delivery, monkeypatch):
    calls = []
    record = RecordedRun.record
    monkeypatch.setattr(RecordedRun, "record", lambda *a, **k: calls.append(k["last"]) or record(*a, **k))
    monkeypatch.setattr(delivery_module, "RECORD_SECONDS", 1000.0)
    recorder.hear(0, epoch(2))
    while not calls:
        delivery.wait(0.01)
    for index in range(1, 6):
        recorder.hear(0, epoch(2 * (index + 1)))
    recorder.hear(0, Ended())
    recorder.hear(1, epoch(2, np.inf, diverged=True))
    recorder.hear(1, Ended())
    assert delivery.wait() == []
    assert calls == [False, True, True]
    assert points(recorder, "seed=0", "test/loss") == [(2 * k, 2000 * k) for k in range(1, 7)]


def test_reasons_are_a_workers_own_or_the_iteration_that_diverged(recorder, delivery, uri):
    recorder.hear(0, epoch(2, np.inf, diverged=True))
    recorder.hear(0, Ended())
    recorder.hear(1, Ended("MemoryError: none left", "a trace"))
    assert delivery.wait() == []
    states = recorded(uri)
    assert states["seed=0"] == ("FAILED", "diverged: the loss was not finite at iteration 2")
    assert states["seed=1"] == ("FAILED", "MemoryError: none left")


def test_a_best_picture_that_cannot_be_drawn_fails_its_run_and_no_other(uri, monkeypatch):
    def broken(*_):
        raise OSError("no font")

    monkeypatch.setattr(run_pictures, "draw_run", broken)
    jobs = [with_pictures(job(uri, f"seed={s}", model=LOGREG, seed=s), "best") for s in range(2)]
    outcomes = carry_out(jobs, sweep=["seed=0,1"], n_jobs=1)
    assert sorted(outcome.status for outcome in outcomes) == ["FAILED", "FINISHED"]
    states = recorded(uri)
    assert states["sweep of 2 runs"] == ("FAILED", None)
    assert ("FAILED", "OSError: no font") in states.values()
