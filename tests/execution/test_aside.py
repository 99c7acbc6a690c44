"""The worker beside those that train: results, errors and warnings come back."""

import os
import sys

import pytest
from helpers.in_worker import fail_unpicklably, killed, reads, refuse, warned, writes

from lockstep.config.errors import Refused
from lockstep.execution import aside, pool
from lockstep.execution.pool import WorkerDied


@pytest.fixture
def started():
    pool.shut_down()
    pool.start(())  # these tests need no modules: the server starts at once
    yield
    pool.shut_down()


def test_a_process_that_has_not_started_workers_does_it_itself(monkeypatch):
    pool.shut_down()
    monkeypatch.setattr(pool, "_modules", ())
    pool.worker()  # that a training has started
    assert not pool.is_started()
    meanwhile = []
    assert aside.call(os.getpid, meanwhile=lambda: meanwhile.append(1)) == os.getpid()
    assert meanwhile == [1]
    pool.shut_down()


def test_one_worker_carries_out_all_calls_and_none_of_those_that_train(started):
    assert pool.is_started()
    aside.begin(sys.intern, 1)  # whose failure is of no interest
    pid = aside.call(os.getpid)
    assert aside.call(os.getpid) == pid != os.getpid()
    worker = pool.worker()
    worker.submit(os.getpid)
    assert worker.result() not in (pid, os.getpid())


def died(which):
    raise WorkerDied(which)


def test_what_is_done_meanwhile_has_a_worker_of_its_own(started, tmp_path):
    pids = []
    aside.call(reads, tmp_path / "pipe", meanwhile=lambda: pids.append(aside.call(writes, tmp_path / "pipe")))
    pids.append(aside.call(os.getpid))
    assert len({*pids, os.getpid()}) == 3
    with pytest.raises(WorkerDied, match="of another"):
        aside.call(os.getpid, meanwhile=lambda: died("of another"))
    with pytest.raises(ZeroDivisionError):
        aside.call(os.getpid, meanwhile=lambda: 1 / 0)
    assert aside.call(os.getpid) == pids[1]


def test_errors_and_warnings_of_the_worker_are_raised_and_logged_here(started, caplog):
    with pytest.raises(Refused) as refused:
        aside.call(refuse, "one", "two")
    assert refused.value.problems == ("one", "two")
    with pytest.raises(RuntimeError, match=r"^OwnError: what happened$"):
        aside.call(fail_unpicklably)
    assert aside.call(warned) != os.getpid()
    assert caplog.messages == ["UserWarning: of a library's"]


def test_a_worker_that_dies_is_an_error_and_the_next_call_has_another(started):
    with pytest.raises(WorkerDied, match="its worker process died"):
        aside.call(os._exit, 3)
    aside.begin(os._exit, 3)
    assert aside.call(os.getpid) != os.getpid()


def test_a_worker_that_is_killed_once_costs_nothing(started, tmp_path):
    assert aside.call(killed, 1, tmp_path / "log") == 2


def test_a_call_that_kills_its_worker_each_time_is_given_up(started, tmp_path):
    with pytest.raises(WorkerDied, match="its worker process died"):
        aside.call(killed, 9, tmp_path / "log")
    assert (tmp_path / "log").read_text() == "called\n" * 2
