"""The Python API: the same checks, runs and store as the command line's, in a process that goes on."""

import logging
import os
import signal
import subprocess
import sys
import threading
import warnings

import mlflow
import pytest
from helpers.clone import Clone
from helpers.composing import refusal
from helpers.processes import fork_servers

import lockstep

DIGITS = ("data=digits", "trainer.epochs=2", "tracking.pictures=none", "hydra.launcher.n_jobs=1")
LR = "optim.lr=0.1,0.001"


@pytest.fixture(scope="module")
def clone(tmp_path_factory, empty_store):
    """A clone whose first sweep was begun on the command line."""
    clone = Clone(tmp_path_factory.mktemp("api"), empty_store)
    code, _, err = clone.quick("-m", *DIGITS, LR)
    assert (code, err) == (0, "")
    return clone


@pytest.fixture
def at_clone(clone, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(clone.root))
    return clone


def test_import_loads_nothing_heavy():
    heavy = {"torch", "mlflow", "hydra", "omegaconf", "pandas", "numpy", "rich", "pydantic", "optuna"}
    script = f"import lockstep, sys; print(sorted({heavy} & set(sys.modules)), lockstep.sweep.__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[] sweep\n"


def test_the_functions_keep_their_names_where_packages_have_them_too():
    from lockstep.search import session as searching
    from lockstep.sweep import session as sweeping

    assert callable(lockstep.sweep) and callable(lockstep.search)
    assert searching.__name__ == "lockstep.search.session"
    assert lockstep.NotUploaded is sweeping.NotUploaded


def test_a_sweep_of_the_command_line_is_found_stored(at_clone, capsys):
    client = mlflow.MlflowClient(at_clone.store)
    [parent] = client.search_runs(["1"], "tags.`lockstep.kind` = 'sweep'")
    again = lockstep.sweep(*DIGITS, LR)
    assert again.id == parent.info.run_id
    assert [run.is_stored for run in again.runs] == [True, True]
    more = lockstep.sweep(*DIGITS, "optim.lr=0.1,0.001,0.05")
    assert [(run.name, run.is_stored) for run in more.runs] == [
        ("lr=0.1", True),
        ("lr=0.001", True),
        ("lr=0.05", False),
    ]
    assert [run.id for run in more.runs[:2]] == [run.id for run in again.runs]
    assert again.id != more.id
    assert "stored  FINISHED" in capsys.readouterr().out
    call = 'lockstep.sweep("data=digits", "trainer.epochs=2", "tracking.pictures=none", '
    call += '"hydra.launcher.n_jobs=1", "optim.lr=0.1,0.001,0.05")'
    assert client.get_run(more.id).data.tags["lockstep.command"] == call


def test_bad_input_is_the_command_lines_message_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    bad = ("optim.lr=0.1,-1", "model.hiden_dim1=128")
    with pytest.raises(lockstep.Refused) as refused:
        lockstep.sweep(*bad)
    assert list(refused.value.problems) == refusal(*bad, multirun=True)
    assert "did you mean hidden_dim1?" in str(refused.value)
    for call, message in (
        (lambda: lockstep.sweep("data=digits", config_dir="nowhere"), "config_dir=nowhere: not a folder"),
        (
            lambda: lockstep.sweep("hydra/launcher=basic"),
            "hydra/launcher=basic: can be used on the command line only",
        ),
        (lambda: lockstep.sweep("dry_run=true"), "dry_run=true: can be used on the command line only"),
        (
            lambda: lockstep.search("optim.lr=0.1,0.2", n_trials=0),
            "hydra.sweeper.n_trials=0: must be greater",
        ),
        (lambda: lockstep.search("optim.lr=0.1,0.2", n_trails=4), "n_trails"),
        (lambda: lockstep.sweep("tracking.uri=postgresql://me:secret@h/db", "seed=x"), "seed=x"),
    ):
        with pytest.raises(lockstep.Refused) as refused:
            call()
        assert message in str(refused.value)
        assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_process_keeps_its_own_ways(at_clone):
    def state():
        root, log = logging.getLogger(), logging.getLogger("lockstep")
        return (
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
            (os.getcwd(), os.environ["LOCKSTEP_ROOT"]),
            (root.handlers[:], log.handlers[:], log.level),
            (warnings.showwarning, threading.excepthook, sys.argv[:]),
        )

    before = state()
    sweep = lockstep.sweep(*DIGITS[:-1], "optim.lr=0.2,0.02", "hydra.launcher.n_jobs=2")
    assert [run.is_stored for run in sweep.runs] == [False, False]  # they were trained
    assert state() == before
    assert fork_servers(os.getpid()) == set()


def test_a_second_thread_is_refused(at_clone, monkeypatch):
    from lockstep.sweep import checks

    caught, started = [], []

    def from_another_thread(configs):
        if started:
            raise lockstep.Refused(["two at once"])
        started.append(True)

        def call():
            with pytest.raises(lockstep.Refused, match="another thread"):
                lockstep.sweep(*DIGITS, LR)
            caught.append(True)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        raise lockstep.Refused(["enough"])

    monkeypatch.setattr(checks, "check_runs", from_another_thread)
    with pytest.raises(lockstep.Refused, match="enough"):
        lockstep.sweep(*DIGITS, LR)
    assert caught == [True]
