"""Machines, networks, schedulers and commands that die while a sweep trains on a cluster."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from helpers import network
from helpers.cluster import Cluster
from helpers.faults import EPOCH, contents, read_until
from helpers.network import Network
from helpers.processes import workers_of

pytestmark = pytest.mark.faults

SWEEP = ("-m", "data=digits", "data.batch_size=32", "trainer.checkpoint_seconds=1", "tracking.pictures=none")
SWEEP += ("trainer.epochs=150", "model.hidden_dims=[256,64]", "seed=range(0,8)", "hydra.launcher.n_jobs=2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, empty_store):
    """What the sweep leaves that trains on this machine."""
    from helpers.clone import Clone

    clone = Clone(tmp_path_factory.mktemp("local"), empty_store)
    code, _, err = clone.quick(*SWEEP)
    assert code == 0, err
    return contents(clone.store, "digits")


@pytest.fixture
def cluster(tmp_path):
    started = Cluster(tmp_path / "cluster")
    yield started
    started.stop()


def on(cluster):
    return (*SWEEP, f"hydra.launcher.cluster={cluster.address}")


def test_twenty_kills_of_workers_change_nothing(cluster, clone, undisturbed):
    """Some of the processes that train, some of Dask's own with all that they have started."""
    moments, names = random.Random(0), iter(range(100))
    for _ in range(2):
        cluster.add(f"w{next(names)}")
    command = clone.start(*on(cluster))
    for kill in range(20):
        read_until(command, EPOCH)
        time.sleep(moments.uniform(0, 0.5))
        name, worker = moments.choice(list(cluster.workers.items()))
        trains = workers_of(worker.pid)
        if kill % 2 and trains:
            os.kill(moments.choice(sorted(trains)), signal.SIGKILL)
        else:
            worker.kill()
            del cluster.workers[name]
            cluster.add(f"w{next(names)}")
    _, err = command.communicate(timeout=300)
    assert command.returncode == 0, err
    assert contents(clone.store, "digits") == undisturbed


def test_five_kills_of_the_scheduler_change_nothing(cluster, clone, undisturbed):
    command = None
    for kill in range(5):
        cluster.add(f"w{kill}")
        command = command or clone.start(*on(cluster))
        read_until(command, EPOCH)
        cluster.scheduler.kill()
        if kill % 2:  # else they end by themselves
            cluster.workers[f"w{kill}"].kill()
        cluster.start_scheduler()
    cluster.add("last")
    _, err = command.communicate(timeout=300)
    assert command.returncode == 0, err
    assert "Traceback" not in err
    assert contents(clone.store, "digits") == undisturbed


def test_ten_kills_of_the_command_change_nothing(cluster, clone, undisturbed):
    moments = random.Random(0)
    for name in ("a", "b"):
        cluster.add(name)
    for _ in range(10):
        command = clone.start(*on(cluster))
        read_until(command, EPOCH)
        time.sleep(moments.uniform(0, 0.5))
        command.send_signal(signal.SIGKILL)
        command.communicate(timeout=60)
    code, _, err = clone.quick(*on(cluster))
    assert code == 0, err
    assert contents(clone.store, "digits") == undisturbed


@pytest.fixture
def net():
    if not network.can_be_made():
        pytest.skip("needs root, to make networks")
    made = Network()
    yield made
    made.remove()


@pytest.mark.parametrize("seconds", [10, 60])
@pytest.mark.parametrize("cut", ["worker", "command"])
def test_a_network_that_is_cut_for_a_while_changes_nothing(net, tmp_path, clone, undisturbed, cut, seconds):
    places = {name: net.add(name) for name in ("scheduler", "worker", "other", "command")}
    cluster = Cluster(tmp_path / "cluster", places)
    try:
        for name in ("worker", "other"):
            cluster.add(name)
        _, words = places["command"]
        command = subprocess.Popen(
            [*words, sys.executable, str(clone.root / "run.py"), *on(cluster)],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"MLFLOW_PORT": "5000"},
        )
        clone.processes.append(command)
        read_until(command, EPOCH)
        net.cut(cut)
        time.sleep(seconds)
        net.mend(cut)
        out, err = command.communicate(timeout=300)
        if cut == "command" and seconds > 30:  # it may have waited long enough for a new scheduler, or not
            assert command.returncode in (0, 1), err
            if command.returncode == 1:
                assert "Give the same command again" in err
                command = subprocess.run(
                    [*words, sys.executable, str(clone.root / "run.py"), *on(cluster)],
                    env=os.environ | {"MLFLOW_PORT": "5000"},
                    capture_output=True,
                )
        assert command.returncode == 0, (out, err)
        assert contents(clone.store, "digits") == undisturbed
    finally:
        cluster.stop()


def test_five_machines_that_die_change_nothing(net, tmp_path, clone, undisturbed):
    """A machine that dies says nothing: its network ends, then its processes."""
    places = {name: net.add(name) for name in ("scheduler", *(f"m{n}" for n in range(7)))}
    cluster = Cluster(tmp_path / "cluster", places)
    try:
        cluster.add("m0")
        cluster.add("m1")
        _, words = places["scheduler"]
        command = subprocess.Popen(
            [*words, sys.executable, str(clone.root / "run.py"), *on(cluster)],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"MLFLOW_PORT": "5000"},
        )
        clone.processes.append(command)
        for kill in range(5):
            read_until(command, EPOCH)
            net.cut(f"m{kill}")
            cluster.workers.pop(f"m{kill}").kill()
            cluster.add(f"m{kill + 2}")
        _, err = command.communicate(timeout=400)
        assert command.returncode == 0, err
        assert contents(clone.store, "digits") == undisturbed
    finally:
        cluster.stop()
