"""Which of a cluster's workers train, as they come, go, and fail; the scheduler is scripted."""

import logging
from concurrent.futures import Future

import pytest
from helpers.processes import until

from lockstep._version import __version__
from lockstep.config.errors import Refused
from lockstep.execution import cluster, cluster_members
from lockstep.execution.cluster import Cluster
from lockstep.execution.cluster_machine import Machine

HERE = Machine("here", "", __version__, "2.14", {"float32": "0123456789"})
ELSEWHERE = Machine("there", "there:cache", __version__, "2.14", {"float32": "other bits"})


class Client:
    """Dask's client.

    Attributes:
        machines: what workers are, by address.
    """

    status = "running"

    def __init__(self):
        self.machines = {}

    def close(self, timeout):
        pass

    def run(self, function, precisions, workers):
        return {workers[0]: self.machines[workers[0]]}

    def scheduler_info(self, n_workers):
        described = {"nthreads": 1, "host": "127.0.0.1"}
        return {"workers": {of: described | {"name": of.rpartition("/")[2]} for of in self.machines}}


@pytest.fixture
def begun(monkeypatch, caplog):
    """A cluster, before the answers: a worker that computes as this machine does, and one that doesn't."""
    caplog.set_level(logging.INFO, "lockstep")
    client = Client()
    client.machines = {"tcp://same": HERE, "tcp://other": ELSEWHERE}
    monkeypatch.setattr(cluster.cluster_client, "connected", lambda *_: client)
    monkeypatch.setattr(cluster.aside, "begin", lambda *_: None)
    monkeypatch.setattr(cluster.aside, "call", lambda *_: (HERE.torch, HERE.canaries))
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0)
    made = Cluster("tcp://scheduler", False, ["float32"])
    yield made
    made.close()


@pytest.fixture
def joined(begun):
    begun.wait_for_answers()
    begun.members.begin()
    return begun


def names(joined):
    return {member.name for member in joined.members.training.values()}


def test_a_command_that_ends_before_the_answers_does_not_wait_for_them(begun):
    threads = [*begun._threads._threads]
    begun.close()
    until(lambda: not any(thread.is_alive() for thread in threads), 5)


def test_a_worker_that_does_not_train_is_named_with_the_reason_though_others_train(begun, caplog):
    begun.wait_for_answers()
    begun.check()
    assert names(begun) == {"same"}
    assert caplog.messages == [
        "cluster: other (tcp://other) does not train: it computes other bits (canary other bi, here"
        " 01234567); hydra.launcher.mixed=true allows it"
    ]


def test_a_worker_that_leaves_before_the_check_is_no_member(begun):
    begun._here.set_result(HERE)
    until(lambda: len(begun.members.all) == 2)
    begun._here = Future()
    del begun.client.machines["tcp://same"]
    begun.wait_for_answers()
    assert names(begun) == set() and begun.members.all.keys() == {"tcp://other"}
    with pytest.raises(Refused, match="other: it computes other bits"):
        begun.check()


def test_a_worker_that_failed_is_asked_again_after_a_while(joined, caplog, monkeypatch):
    [member] = joined.members.training.values()
    caplog.clear()
    monkeypatch.setattr(cluster_members, "RETRY_SECONDS", 1000)
    joined.members.refuse(member, "OSError: No space left on device")
    joined.look()
    joined.look()
    assert not joined.members.training and joined.members.all.keys() == {"tcp://same", "tcp://other"}
    assert caplog.messages == [
        "cluster: same trains nothing for 1000 s: OSError: No space left on device",
        "cluster: no worker is left that trains; waiting for one",
    ]
    monkeypatch.setattr(cluster_members, "RETRY_SECONDS", -1)
    joined.members.refuse(member, "OSError: No space left on device")
    until(lambda: joined.look() or names(joined) == {"same"}, 20)


def test_workers_that_come_and_leave(joined, caplog):
    caplog.clear()
    joined.client.machines["tcp://new"] = HERE
    until(lambda: joined.look() or names(joined) == {"same", "new"}, 20)
    del joined.client.machines["tcp://same"]
    joined.look()
    assert names(joined) == {"new"}
    assert caplog.messages == ["cluster: new on here has come", "cluster: same on here has left"]
