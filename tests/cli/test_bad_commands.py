"""Generated commands that are wrong: exit code 2, one message with key and value, nothing made; at once."""

import signal
import sys
from contextlib import contextmanager

import pytest
from helpers.bad_commands import ODD, REFUSED
from helpers.clone import REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.cli import command, workers
from lockstep.config.parsing import as_if_typed
from lockstep.sweep import checks

SECONDS = 60
"""The longest that a command may take here: most take a tenth of a second."""

COMMANDS = st.one_of(REFUSED, REFUSED, ODD.map(lambda arguments: (arguments, None, None)))


@contextmanager
def limited():
    """Fail after SECONDS: a command that lists an endless range never ends."""

    def too_long(*_):
        raise AssertionError("it takes too long")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def carried_out(monkeypatch, capsys, tmp_path):
    """Carry out a command up to where Hydra takes over: its exit code, and what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(command.interrupts, "listen", lambda: None)
    monkeypatch.setattr(workers, "start_workers", lambda *_: None)
    monkeypatch.setattr(checks, "check_store", lambda _: None)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", "data=digits", "model=mlp", *arguments])
        with limited():
            code = command.run(lambda _: None, lambda: None, REPOSITORY / "conf")
        assert list(tmp_path.iterdir()) == []
        return code, capsys.readouterr().err

    return run


def check(carried_out, arguments, key, value):
    try:
        code, err = carried_out(*arguments)
    except SystemExit as ended:  # argparse's, of what starts with a dash
        code, err = ended.code, f"{key}={value}"
    assert code == 2 if key is not None else code in (0, 2)
    assert "Traceback" not in err
    assert bool(err) == (code == 2)
    if key is not None:
        assert key.rpartition(".")[2] in err
        shown = (value, str(as_if_typed(value)), f"{as_if_typed(value)}"[:40])
        assert any(text in err for text in shown) or value[:1] in ("[", "{"), err


SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=25, derandomize=True, **SETTINGS)
@given(COMMANDS)
def test_bad_commands_are_refused(carried_out, bad):
    check(carried_out, *bad)


@pytest.mark.faults
@settings(max_examples=400, **SETTINGS)
@given(COMMANDS)
def test_many_bad_commands_are_refused(carried_out, bad):
    check(carried_out, *bad)
