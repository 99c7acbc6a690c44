"""Sweeps and searches from Python that are killed or interrupted, then called again: nothing is lost."""

import os
import signal
import threading

import mlflow
import pytest
from helpers import forked
from helpers.clone import Clone
from helpers.faults import contents, read_until
from helpers.processes import fork_servers
from helpers.searches import compare_study_with_store

import lockstep
from lockstep.recovery.run_folder import unfinished
from lockstep.terminal.progress import Progress

SWEEP = (
    *("data=digits", "trainer.epochs=16", "optim.lr=0.1,0.05", "data.batch_size=64,32"),
    *("tracking.pictures=none", "hydra.launcher.n_jobs=1"),
)
SEARCH = (
    *("data=digits", "data.val_size=300", "trainer.epochs=8", "tracking.pictures=none"),
    *("model.hidden_dim1=16", "optim.lr=tag(log,interval(0.003,0.5))", "hydra.launcher.n_jobs=1"),
)
CALLS = {  # as `python -c` and scripts have them: without a guard
    "sweep": f"import lockstep; lockstep.sweep(*{SWEEP})",
    "search": f"import lockstep; lockstep.search(*{SEARCH}, n_trials=8, array_size=4)",
}


def called(what):
    if what == "sweep":
        return lockstep.sweep(*SWEEP)
    return lockstep.search(*SEARCH, n_trials=8, array_size=4)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, empty_store):
    """What the store holds of a call that nobody disturbed, by function."""
    held = {}
    for what in CALLS:
        clone = Clone(tmp_path_factory.mktemp(what), empty_store)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LOCKSTEP_ROOT", str(clone.root))
            called(what)
        held[what] = contents(clone.store, "digits")
    return held


@pytest.mark.parametrize("what", CALLS)
def test_a_killed_process_loses_nothing(what, clone, undisturbed, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(clone.root))
    process = forked.Started(["-c", CALLS[what]], clone.root, dict(os.environ))
    for _ in range(5):
        read_until(process, "  epoch ")
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert list(unfinished().glob("*/run.json"))
    again = called(what)
    assert {run.status for run in again.runs} == {"FINISHED"}
    assert contents(clone.store, "digits") == undisturbed[what]
    if what == "search":
        compare_study_with_store(clone)


@pytest.fixture
def interrupted_after(monkeypatch):
    """Has SIGINT come after so many epochs and seconds, as a kernel's user sends it."""

    def interrupted(epochs, seconds):
        left = iter(range(epochs - 1, -1, -1))

        def epoch(progress, number, history):
            shown(progress, number, history)
            if next(left, None) == 0:
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()

        monkeypatch.setattr(Progress, "epoch", epoch)

    shown = Progress.epoch
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield interrupted
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_call_can_be_resumed_by_any_process(
    clone, undisturbed, monkeypatch, interrupted_after, capsys
):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(clone.root))
    client, before = mlflow.MlflowClient(clone.store), set(threading.enumerate())
    for workers, seconds in ((2, 0.0), (1, 0.03)):
        interrupted_after(3, seconds)
        with pytest.raises(KeyboardInterrupt):
            lockstep.sweep(*SWEEP[:-1], f"hydra.launcher.n_jobs={workers}")
        assert {run.info.status for run in client.search_runs(["1"])} <= {"KILLED", "FINISHED"}
        assert {thread.name for thread in set(threading.enumerate()) - before if not thread.daemon} == set()
        assert fork_servers(os.getpid()) == set()
    monkeypatch.undo()
    # The command line takes over while this process, which has begun it, is still there.
    code, _, err = clone.quick("-m", *SWEEP)
    assert (code, err) == (0, "")
    assert contents(clone.store, "digits") == undisturbed["sweep"]
