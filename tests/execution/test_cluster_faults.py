"""Machines, networks, schedulers and commands that die while a sweep trains on a cluster."""

import os
import random
import signal
import subprocess
import sys
import time

import mlflow
import optuna
import pytest
from helpers import network
from helpers.cluster import Cluster
from helpers.faults import EPOCH, contents, read_until
from helpers.network import Network
from helpers.processes import workers_of
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from lockstep.search.study import FILE

pytestmark = pytest.mark.faults

SWEEP = ("-m", "data=digits", "data.batch_size=32", "trainer.checkpoint_seconds=1", "tracking.pictures=none")
SWEEP += ("trainer.epochs=250", "model.hidden_dims=[256,64]", "seed=range(0,8)", "hydra.launcher.n_jobs=2")


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


@pytest.mark.mnist
@pytest.mark.parametrize(
    "networks",
    [
        ("model.hidden_dim1=128,256", "seed=range(0,4)"),
        ("model=cnn", "model.channels=[8,16]", "seed=range(0,4)"),
    ],
    ids=["8 MLPs", "4 CNNs"],
)
def test_mnist_on_two_machines_is_what_it_is_on_one(net, tmp_path, make_clone, empty_store, networks):
    sweep = ("-m", "trainer.epochs=1", "data.batch_size=128", *networks)
    places = {name: net.add(name) for name in ("scheduler", "a", "b")}
    cluster = Cluster(tmp_path / "cluster", places)
    try:
        for name in ("a", "b"):
            cluster.add(name)
        there, here = make_clone(empty_store), make_clone(empty_store)
        words = (*places["scheduler"][1], sys.executable)
        done = subprocess.run(
            [*words, str(there.root / "run.py"), *sweep, f"hydra.launcher.cluster={cluster.address}"],
            env=os.environ | {"MLFLOW_PORT": "5000"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert here.quick(*sweep)[0] == 0
        assert contents(there.store, "mnist") == contents(here.store, "mnist")
        used = {line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("on ")}
        assert used == {"on a", "on b"}
    finally:
        cluster.stop()


def test_a_search_on_two_machines_has_runs_that_each_are_as_if_alone(cluster, clone):
    search = ("-m", "data=digits", "data.val_size=300", "hydra/sweeper=search", "hydra.sweeper.n_trials=32")
    search += ("trainer.epochs=10", "optim.lr=tag(log,interval(0.01,0.5))", "tracking.pictures=none")
    for name in ("a", "b"):
        cluster.add(name)
    code, _, err = clone.quick(*search, f"hydra.launcher.cluster={cluster.address}")
    assert code == 0, err
    client = mlflow.MlflowClient(clone.store)
    runs = client.search_runs(["1"], "tags.`lockstep.kind` = 'run'", max_results=100)
    [folder] = (clone.root / "outputs" / "studies").glob("*/")
    study = optuna.load_study(
        study_name=folder.name, storage=JournalStorage(JournalFileBackend(str(folder / FILE)))
    )
    trials = [trial for trial in study.get_trials() if trial.state.is_finished()]
    assert len(trials) == len(runs) == 32
    accuracies = sorted(run.data.metrics["val/accuracy"] for run in runs)
    assert sorted(trial.user_attrs["outcome"]["metrics"]["val/accuracy"] for trial in trials) == accuracies
    pruned = [run for run in runs if "lockstep.pruned_at" in run.data.tags]
    whole = [run for run in runs if run not in pruned]
    assert pruned and whole
    for run in (*whole, *pruned[:3]):
        alone = [f"{key}={run.data.params[key]}" for key in ("optim.lr", "seed")]
        common = [word for word in search if word.startswith(("data", "trainer", "tracking"))]
        code, _, err = clone.quick(*common, *alone, "tracking.experiment=alone")
        assert code == 0, err
        experiment = client.get_experiment_by_name("alone").experiment_id
        [again] = client.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=1)
        for metric in ("train/loss", "val/loss", "test/accuracy"):
            here, there = (
                {point.step: point.value for point in client.get_metric_history(of.info.run_id, metric)}
                for of in (run, again)
            )
            steps = here.keys() & there.keys()  # a pruned run ends at a rung
            assert steps and {step: here[step] for step in steps} == {step: there[step] for step in steps}
