"""News of runs → store and outcomes, in whatever order they come."""

import numpy as np
import pytest
from test_sweep import job, recorded, with_pictures
from test_train import LOGREG

from lockstep import artifacts
from lockstep import recorder as recorder_module
from lockstep.recorder import Recorder
from lockstep.sweep import carry_out, run_names
from lockstep.terminal import Progress
from lockstep.tracking import RecordedRun, Store
from lockstep.train import Epoch, Evaluation
from lockstep.workers import Ended


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


def epoch(iteration, loss=1.0, diverged=False):
    evaluations = () if diverged else (Evaluation(iteration, "test", loss, 0.5),)
    return Epoch(np.full(2, loss), np.full(2, 0.5), evaluations, 0.1, diverged)


@pytest.fixture
def recorder(uri, tmp_path):
    jobs = [with_pictures(job(uri, f"seed={s}", epochs=6, model=LOGREG, seed=s), "none") for s in range(3)]
    (tmp_path / "written").mkdir()
    return Recorder(Store(uri), jobs, run_names(jobs), tmp_path / "written", None, Progress(3))


def test_runs_appear_with_their_first_news_and_those_under_way_are_killed_at_the_end(recorder, uri):
    with recorder:
        recorder.hear(2, epoch(2))
        recorder.hear(0, epoch(2))
        recorder.hear(2, Ended())
        assert recorded(uri) == {"seed=0": ("RUNNING", None), "seed=2": ("FINISHED", None)}
    assert recorded(uri) == {"seed=0": ("KILLED", None), "seed=2": ("FINISHED", None)}
    assert [outcome.name for outcome in recorder.outcomes] == ["seed=2"]


def test_metrics_go_to_the_store_once_a_second_and_all_by_the_end(recorder, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: now[0])

    def stored(run_id):
        return [p.step for p in recorder._store.client.get_metric_history(run_id, "test/loss")]

    with recorder:
        for index, passed in enumerate((0.0, 0.5, 0.4, 0.2, 0.3)):
            now[0] += passed
            recorder.hear(0, epoch(2 * (index + 1)))
        run_id = recorder._recorded[0].run_id
        assert stored(run_id) == [2, 4, 6, 8]  # at the first epoch, and 1.1 s later
    assert stored(run_id) == [2, 4, 6, 8, 10]


def test_the_last_epoch_goes_to_the_store_with_the_runs_end(recorder, monkeypatch):
    calls = []
    record = RecordedRun.record
    monkeypatch.setattr(RecordedRun, "record", lambda *a, **k: calls.append(a[0]) or record(*a, **k))
    monkeypatch.setattr(recorder_module, "RECORD_SECONDS", 0.0)
    with recorder:
        for index in range(6):
            recorder.hear(0, epoch(2 * (index + 1)))
        recorder.hear(0, Ended())
        recorder.hear(1, epoch(2, np.inf, diverged=True))
        recorder.hear(1, Ended())
    first, second = recorder._recorded[0], recorder._recorded[1]
    assert calls == [first] * 6 + [second]
    steps = [p.step for p in recorder._store.client.get_metric_history(first.run_id, "test/loss")]
    assert steps == [2, 4, 6, 8, 10, 12]


def test_what_goes_wrong_while_a_run_is_recorded_fails_that_run_and_it_is_heard_no_more(
    recorder, monkeypatch, uri
):
    def broken(*_, **__):
        raise OSError("the store is full")

    with recorder:
        recorder.hear(0, epoch(2))
        monkeypatch.setattr(recorder._recorded[0], "artifacts", broken)
        recorder.hear(0, Ended())
        recorder.hear(0, epoch(4))
        recorder.hear(1, epoch(2))
        recorder.hear(1, Ended())
    assert recorded(uri) == {"seed=0": ("FAILED", "OSError: the store is full"), "seed=1": ("FINISHED", None)}
    assert [outcome.history.epochs for outcome in recorder.outcomes] == [1, 1]


def test_reasons_are_a_workers_own_or_the_iteration_that_diverged(recorder, uri):
    with recorder:
        recorder.hear(0, epoch(2, np.inf, diverged=True))
        recorder.hear(0, Ended())
        recorder.hear(1, Ended("MemoryError: none left", "a trace"))
    assert recorded(uri) == {
        "seed=0": ("FAILED", "diverged: the loss was not finite at iteration 2"),
        "seed=1": ("FAILED", "MemoryError: none left"),
    }


def test_a_best_picture_that_cannot_be_drawn_fails_its_run_and_no_other(uri, monkeypatch):
    def broken(*_):
        raise OSError("no font")

    monkeypatch.setattr(artifacts, "draw_run", broken)
    jobs = [with_pictures(job(uri, f"seed={s}", model=LOGREG, seed=s), "best") for s in range(2)]
    outcomes = carry_out(jobs, sweep=["seed=0,1"], n_jobs=1)
    assert sorted(outcome.status for outcome in outcomes) == ["FAILED", "FINISHED"]
    states = recorded(uri)
    assert states["sweep of 2 runs"] == ("FAILED", None)
    assert ("FAILED", "OSError: no font") in states.values()
