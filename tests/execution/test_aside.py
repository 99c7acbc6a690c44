"""Calls in the worker beside those that train."""

import os
import signal

import pytest

from lockstep.execution import aside, pool


@pytest.fixture(autouse=True)
def started():
    pool.start(())
    yield
    pool.shut_down()


def killed(times, log):
    """Be killed so often, then return how often it was called."""
    with log.open("a") as opened:
        opened.write("called\n")
    n_called = len(log.read_text().splitlines())
    if n_called <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return n_called


def test_a_worker_that_is_killed_once_costs_nothing(tmp_path):
    assert aside.call(killed, 1, tmp_path / "log") == 2


def test_a_call_that_kills_its_worker_each_time_is_given_up(tmp_path):
    with pytest.raises(pool.WorkerDied, match="its worker process died"):
        aside.call(killed, 9, tmp_path / "log")
    assert (tmp_path / "log").read_text() == "called\n" * 2
