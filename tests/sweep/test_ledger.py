"""What is heard of runs, in whatever order → their results and the store."""

import numpy as np
import pytest
from helpers.configs import LOGREG, job, with_pictures
from helpers.records import recorded

from lockstep.recovery.journal import Ended
from lockstep.results.history import Epoch, Evaluation
from lockstep.sweep.ledger import Ledger
from lockstep.sweep.parent import ParentRun, SweepRequest
from lockstep.sweep.planning import run_names
from lockstep.terminal.progress import Progress
from lockstep.tracking import upload as upload_module
from lockstep.tracking.run import RecordedRun
from lockstep.tracking.store import Store
from lockstep.tracking.uploader import Uploader


def epoch(iteration, loss=1.0, diverged=False):
    evaluations = () if diverged else (Evaluation(iteration, "test", loss, 0.5),)
    return Epoch(np.full(2, loss), np.full(2, 0.5), evaluations, 0.1, diverged, at=1000 * iteration)


@pytest.fixture
def uploader(uri):
    with Uploader(Store(uri)) as uploader:
        yield uploader


@pytest.fixture
def ledger(uri, uploader):
    jobs = [with_pictures(job(uri, f"seed={s}", epochs=6, model=LOGREG, seed=s), "none") for s in range(3)]
    sweep = SweepRequest("sweep of 3 runs", ["seed=0,1,2"], "digits", "a key", "an earlier folder")
    store = uploader._store
    ledger = Ledger(store, ParentRun(store, sweep, uploader), uploader, Progress(3, is_sweep=True))
    entries = [ledger.add(job, name) for job, name in zip(jobs, run_names(jobs), strict=True)]
    assert ledger.claim(ledger.pending()) == entries
    return ledger


def test_runs_appear_with_their_first_news_and_those_under_way_are_killed_at_the_end(ledger, uploader, uri):
    ledger.receive(2, epoch(2))
    ledger.receive(0, epoch(2))
    ledger.receive(2, Ended())
    assert uploader.wait() == []
    assert recorded(uri) == {
        "sweep of 3 runs": ("RUNNING", None),
        "seed=0": ("RUNNING", None),
        "seed=2": ("FINISHED", None),
    }
    assert [entry.name for entry in ledger.pending()] == ["seed=0", "seed=1"]
    ledger.close("KILLED")
    assert uploader.wait() == []
    assert recorded(uri) == {
        "sweep of 3 runs": ("KILLED", None),
        "seed=0": ("KILLED", None),
        "seed=2": ("FINISHED", None),
    }
    assert [result.name for result in ledger.results] == ["seed=2"]


def points(ledger, name, key):
    client = ledger._store.client
    [run] = client.search_runs(["1"], f"attributes.run_name = '{name}'")
    return sorted((p.step, p.timestamp) for p in client.get_metric_history(run.info.run_id, key))


def test_metrics_go_to_the_store_at_most_once_in_a_while_and_all_by_the_end(ledger, uploader, monkeypatch):
    calls = []
    record = RecordedRun.record
    monkeypatch.setattr(RecordedRun, "record", lambda *a, **k: calls.append(k["last"]) or record(*a, **k))
    monkeypatch.setattr(upload_module, "RECORD_SECONDS", 1000.0)
    ledger.receive(0, epoch(2))
    while not calls:
        uploader.wait(0.01)
    for index in range(1, 6):
        ledger.receive(0, epoch(2 * (index + 1)))
    ledger.receive(0, Ended())
    ledger.receive(1, epoch(2, np.inf, diverged=True))
    ledger.receive(1, Ended())
    assert uploader.wait() == []
    assert calls == [False, True]  # the second run is recorded as a whole
    assert points(ledger, "seed=0", "test/loss") == [(2 * k, 2000 * k) for k in range(1, 7)]


def test_reasons_are_a_workers_own_or_the_iteration_that_diverged(ledger, uploader, uri):
    ledger.receive(0, epoch(2, np.inf, diverged=True))
    ledger.receive(0, Ended())
    ledger.receive(1, Ended("MemoryError: none left", "a trace"))
    assert uploader.wait() == []
    states = recorded(uri)
    assert states["seed=0"] == ("FAILED", "diverged: the loss was not finite at iteration 2")
    assert states["seed=1"] == ("FAILED", "MemoryError: none left")


def test_an_interrupted_command_says_what_is_left_and_from_where(ledger, uploader, uri):
    assert ledger.saved() == "0 of 3 runs have ended; left to train: 3 from the start"
    ledger.receive(0, epoch(2))
    ledger.pending()[0].folder.save(1, b"state")
    assert ledger.saved() == "0 of 3 runs have ended; left to train: 1 from a checkpoint, 2 from the start"
    ledger.receive(1, Ended())
    ledger.receive(2, Ended())
    assert ledger.saved() == "2 of 3 runs have ended; left to train: 1 from a checkpoint"
    ledger.receive(0, Ended())
    assert ledger.saved() == "3 of 3 runs have ended"


def test_a_run_without_a_sweep_never_resumes(uri, uploader):
    ledger = Ledger(uploader._store, None, uploader, Progress(3, is_sweep=False))
    entry = ledger.add(with_pictures(job(uri, "seed=0", epochs=6, model=LOGREG, seed=0), "none"), "a run")
    assert ledger.claim([entry]) == [entry]
    ledger.receive(0, epoch(2))
    entry.folder.save(1, b"state")
    assert ledger.saved() == "0 of 1 runs have ended; left to train: 1 from the start"
