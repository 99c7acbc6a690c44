"""Sweeps on a cluster, against the same ones on this machine alone."""

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import mlflow
import numpy as np
import pytest
from helpers import forked
from helpers.cluster import Cluster
from helpers.faults import EPOCH, contents, read_until
from helpers.processes import workers_of
from helpers.tables import birds, write

from lockstep.config.errors import Refused
from lockstep.execution import cluster as lockstep_cluster
from lockstep.execution.cluster_attempt import LEASE_SECONDS

DIGITS = ("data=digits", "data.batch_size=128", "trainer.checkpoint_seconds=0")
SWEEP = ("-m", *DIGITS, "trainer.epochs=2", "model.hidden_dims=[16],[24,12]", "seed=0,1")
LONG = (
    "-m",
    *DIGITS,
    "trainer.epochs=30",
    "tracking.pictures=none",
    "model.hidden_dims=[256]",
    "seed=range(0,4)",
)


@pytest.fixture
def cluster(tmp_path):
    started = Cluster(tmp_path / "cluster")
    yield started
    started.stop()


def on(cluster, *arguments):
    return (*arguments, f"hydra.launcher.cluster={cluster.address}")


def trained(clone, *arguments):
    """What a store holds of a sweep on digits."""
    code, out, err = clone.quick(*arguments)
    assert code == 0, err
    return contents(clone.store, "digits"), out


def computing(cluster):
    """The CPU time of the processes that train for a cluster's workers, in 1/100 s, by process."""
    running = [worker.pid for worker in cluster.workers.values() if worker.poll() is None]
    found = {}
    for pid in set().union(*map(workers_of, running)):
        with suppress(FileNotFoundError):  # it has ended meanwhile
            found[pid] = sum(
                map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
            )
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, empty_store):
    """What SWEEP and LONG leave that train on this machine, by arguments."""
    from helpers.clone import Clone

    found = {}
    for name, arguments in (("sweep", SWEEP), ("long", LONG)):
        found[arguments] = trained(Clone(tmp_path_factory.mktemp(name), empty_store), *arguments)[0]
    return found


def test_two_machines_give_all_that_one_gives(cluster, clone, undisturbed):
    cluster.add("a")
    cluster.add("b", n_threads=2)
    found, out = trained(clone, *on(cluster, *SWEEP))
    assert found == undisturbed[SWEEP]
    assert f"Cluster {cluster.address}: 3 workers" in out
    assert {line.split(":")[0] for line in out.splitlines() if line.startswith("on ")} == {"on a", "on b"}
    assert not list((clone.root / "outputs" / "unfinished").glob("*/"))
    found, out = trained(clone, *on(cluster, *SWEEP))
    assert found == undisturbed[SWEEP]
    assert "\non " not in out, "stored runs train again"


def test_a_worker_that_is_killed_costs_nothing(cluster, clone, undisturbed):
    cluster.add("a")
    cluster.add("b")
    command = clone.start(*on(cluster, *LONG))
    read_until(command, EPOCH)
    cluster.workers["a"].kill()
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    assert contents(clone.store, "digits") == undisturbed[LONG]
    assert f"cluster: a on {socket.gethostname()} has left" in out


def test_a_command_that_is_killed_leaves_nobody_computing(cluster, clone):
    cluster.add("a", n_threads=2)
    command = clone.start(*on(cluster, *LONG, "trainer.epochs=100000"))
    read_until(command, EPOCH)
    assert computing(cluster)
    command.send_signal(signal.SIGKILL)
    command.communicate(timeout=60)
    time.sleep(LEASE_SECONDS + 2)
    before = computing(cluster)
    time.sleep(0.5)
    assert computing(cluster) == before


def test_a_command_that_is_killed_resumes(cluster, clone, undisturbed):
    cluster.add("a")
    command = clone.start(*on(cluster, *LONG))
    read_until(command, "epoch  8/30")
    command.send_signal(signal.SIGKILL)
    command.communicate(timeout=60)
    found, out = trained(clone, *on(cluster, *LONG))
    assert found == undisturbed[LONG]
    assert "epoch  1/30" not in out, "it began anew"


@pytest.mark.faults
def test_a_scheduler_that_is_killed_costs_nothing(cluster, clone, undisturbed):
    cluster.add("a")
    command = clone.start(*on(cluster, *LONG))
    read_until(command, EPOCH)
    cluster.scheduler.kill()
    cluster.workers["a"].kill()
    cluster.start_scheduler()
    cluster.add("b")
    _, err = command.communicate(timeout=180)
    assert command.returncode == 0, err
    assert contents(clone.store, "digits") == undisturbed[LONG]


def test_a_search_on_one_worker_has_the_trials_that_it_has_locally(cluster, make_clone, empty_store):
    search = (*DIGITS, "hydra/sweeper=search", "hydra.sweeper.n_trials=5", "trainer.epochs=2")
    search = ("-m", *search, "data.val_size=300", "optim.lr=interval(0.01,0.3)", "tracking.pictures=none")
    search += ("hydra.launcher.n_jobs=1",)
    cluster.add("a")
    there, here = make_clone(empty_store), make_clone(empty_store)
    assert trained(there, *on(cluster, *search))[0] == trained(here, *search)[0]


def of_arrays(folder):
    draws = np.random.default_rng(0)
    arrays = {"x_train": draws.random((300, 7)), "y_train": np.arange(300) % 3}
    arrays |= {"x_test": draws.random((60, 7)), "y_test": np.arange(60) % 3}
    np.savez(folder / "own.npz", **arrays)
    return "data=arrays", f"data.path={folder / 'own.npz'}", "seed=0,1"


def of_table(folder):
    path = write(folder / "birds.csv", birds())
    return "data=table", f"data.path={path}", "data.target=species", "data.folds=2", "data.fold=0,1"


@pytest.mark.parametrize(
    ("of_data", "n_data_sets"), [(of_table, 2), pytest.param(of_arrays, 1, marks=pytest.mark.faults)]
)
def test_the_users_own_data_are_sent(cluster, clone, make_clone, empty_store, tmp_path, of_data, n_data_sets):
    name, *others = of_data(tmp_path)
    sweep = ("-m", name, *others, "trainer.epochs=2", "data.batch_size=16")
    cluster.add("a")
    code, _, err = clone.quick(*on(cluster, *sweep))
    assert code == 0, err
    here, experiment = make_clone(empty_store), name.removeprefix("data=")
    assert here.quick(*sweep)[0] == 0
    assert contents(clone.store, experiment) == contents(here.store, experiment) != {}
    kept = (cluster.home("a") / "cache" / "lockstep" / "arrays").glob("*/x_train.npy")
    assert len(list(kept)) == n_data_sets


def test_a_run_that_kills_its_worker_every_time_fails_alone(cluster, clone, tmp_path):
    (tmp_path / "nets.py").write_text(
        "import os\nimport torch\nfrom torch import nn\n\n\nclass Deadly(nn.Module):\n"
        "    def __init__(self, input_shape, n_classes, kills: bool = False):\n"
        "        super().__init__()\n        self.kills = kills\n"
        "        self.layer = nn.Linear(input_shape[-1] * input_shape[-2], n_classes)\n\n"
        "    def forward(self, x):\n"
        "        if self.kills and 'cluster' in os.getcwd():\n            os._exit(9)\n"
        "        return self.layer(x.flatten(1))\n"
    )
    sweep = ("-m", *DIGITS, "trainer.epochs=2", f"model.path={tmp_path / 'nets.py'}:Deadly", "model=module")
    cluster.add("a")
    code, out, err = clone.quick(*on(cluster, *sweep, "+model.kills=false,true", "tracking.pictures=none"))
    assert code == 1, (out, err)
    runs = mlflow.MlflowClient(clone.store).search_runs(["1"])
    status = {
        run.data.params.get("model.kills"): run.info.status for run in runs if "model" in run.data.params
    }
    assert status == {"false": "FINISHED", "true": "FAILED"}


def test_workers_that_compute_otherwise_do_not_train(cluster, clone):
    cluster.add("other", ATEN_CPU_CAPABILITY="default")
    code, _, refused = clone.quick(*on(cluster, *SWEEP))
    assert code == 2
    assert "it computes other bits (canary " in refused and "hydra.launcher.mixed=true allows it" in refused
    assert "Traceback" not in refused
    code, out, _ = clone.verb("doctor", "--cluster", cluster.address)
    assert code == 1
    assert "other (tcp://127.0.0.1" in out and "it computes other bits (canary " in out
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["other", "1"], ["this", "machine"]]
    small = ("tracking.pictures=none", "seed=0", "hydra.launcher.mixed=true")
    code, _, err = clone.quick(*on(cluster, *SWEEP, *small))
    assert code == 0, err
    runs = mlflow.MlflowClient(clone.store).search_runs(["1"], "tags.`lockstep.kind` = 'run'")
    [canary] = {run.data.tags["lockstep.canary"] for run in runs}
    assert canary[:8] in refused.partition("canary ")[2].partition(",")[0]


def connected(clone, address):
    """What a process says that connects to a cluster, and waits for a second only."""
    script = "from lockstep.execution import cluster\ncluster.CONNECT_SECONDS = 1\n"
    script += f"try:\n    cluster.connect({address!r}, False, ['float32'])\n"
    script += "    cluster.connected().wait_for_answers()\n    cluster.connected().check()\n"
    script += "except cluster.Refused as refused:\n    print(refused)\ncluster.disconnect()"
    done = forked.run(("-c", script), clone.root, dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nowhere.json", "no such scheduler file"),
        ("tcp://127.0.0.1:9", "Timed out trying to connect to tcp://127.0.0.1:9 after 1 s"),
        ("what", ""),
    ],
)
def test_a_cluster_that_is_not_there_is_refused(clone, address, said):
    out = connected(clone, address)
    assert out.startswith(f"hydra.launcher.cluster={address}: ") and said in out


def test_without_dask_a_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(Refused, match=r"^hydra\.launcher\.cluster=what: needs Dask; install it with pip"):
        lockstep_cluster.connect("what", False, ["float32"])


def test_a_cluster_without_workers_is_refused(clone, cluster):
    out = connected(clone, cluster.address)
    assert out == (
        f"hydra.launcher.cluster={cluster.address}: it has no workers;"
        " docs/cluster.md says how to start some\n"
    )


def test_a_refused_command_writes_nothing(clone):
    code, _, err = clone.quick(*SWEEP, "hydra.launcher.cluster=127.0.0.1")
    assert code == 2 and err.startswith("hydra.launcher.cluster=127.0.0.1: ") and err.count("\n") == 1
    assert not (clone.root / "outputs" / "sweeps").exists()
