"""Arrays in worker processes: the same numbers as in this one, and what happens when something breaks."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.configs import LOGREG, MLP, quiet, run_config, sgd
from helpers.processes import alive, until, workers_of
from helpers.tasks import Received, mlps, tasks_of

from lockstep.config.model_config import MLPConfig
from lockstep.config.optim_config import AdamConfig
from lockstep.data import sources
from lockstep.data.datasets import load
from lockstep.data.description import iterations_per_epoch
from lockstep.execution.executor import carry_out
from lockstep.recovery.journal import Ended
from lockstep.results.history import Epoch
from lockstep.training.loop import train

ADAM = AdamConfig(name="adam", lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
WIDE = MLPConfig(name="mlp", hidden_dims=(512, 256), dropout=0.5, activation="tanh")
DEEP = MLPConfig(name="mlp", hidden_dims=(20, 10, 5), dropout=0.0, activation="sigmoid")


MIXED = [
    quiet(config)
    for config in (
        *(run_config(LOGREG, sgd(lr), epochs=2, seed=seed) for seed, lr in enumerate((0.5, 0.1, 0.01))),
        *(run_config(MLP, sgd(lr), epochs=2, seed=seed) for seed, lr in enumerate((0.5, 0.1, 0.01))),
        run_config(MLP, ADAM, epochs=3),
        run_config(MLP, sgd(1e20), epochs=3),  # diverges
        run_config(LOGREG, ADAM, epochs=1),
        run_config(WIDE, epochs=2),
        run_config(WIDE, sgd(0.2), epochs=1, seed=4),
        run_config(DEEP, epochs=2),
    )
]


def carried_out(tasks, n_workers, report):
    left = iter(tasks)
    carry_out(lambda: next(left, None), [sources.load(tasks[0].runs[0].config.data)], n_workers, report)


def trained(configs, arrays, folder, n_workers=1, exact=False):
    """Each run's history and the bytes of its weights, trained in the given arrays."""
    tasks = tasks_of(configs, arrays, folder, exact)
    received = Received(len(configs))
    carried_out(tasks, n_workers, received.receive)
    assert received.ends == {k: Ended() for k in range(len(configs))}
    weights = [folder / str(k) / "artifacts" / "model" / "state_dict.pt" for k in range(len(configs))]
    return received.histories, [
        torch.load(path, weights_only=True) if path.exists() else None for path in weights
    ]


def assert_same(a, b, order=None):
    (histories, weights), (others, other_weights) = a, b
    order = order or range(len(histories))
    for k, history in enumerate(histories):
        other, its_weights = others[order[k]], other_weights[order[k]]
        assert np.array_equal(history.loss_T, other.loss_T, equal_nan=True)
        assert np.array_equal(history.accuracy_T, other.accuracy_T)
        assert history.evaluations == other.evaluations
        assert (history.epochs, history.diverged_at) == (other.epochs, other.diverged_at)
        assert (weights[k] is None) == (its_weights is None) == (history.diverged_at is not None)
        if its_weights is not None:
            assert list(weights[k]) == list(its_weights)
            assert all(torch.equal(weights[k][name], its_weights[name]) for name in its_weights)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Every run of the mixed sweep trained alone, in this process."""
    return trained(MIXED, [[k] for k in range(len(MIXED))], tmp_path_factory.mktemp("alone"))


ALL = list(range(len(MIXED)))


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    ("arrays", "n_workers", "exact"),
    [
        ([ALL], 1, False),
        ([ALL[::-1]], 1, True),
        ([ALL[::2], ALL[1::2]], 2, False),
        ([[11, 0, 5, 7], [2, 1], [3, 9, 10], [4, 8, 6]], 2, False),
        ([[k] for k in ALL], 3, True),
    ],
)
def test_a_mixed_sweep_gives_each_run_the_bits_it_has_alone(alone, tmp_path, arrays, n_workers, exact):
    assert_same(trained(MIXED, arrays, tmp_path, n_workers, exact), alone)


def test_the_order_of_jobs_changes_no_bit(alone, tmp_path):
    order = [5, 3, 11, 0, 7, 9, 2, 10, 4, 1, 8, 6]
    permuted = trained([MIXED[k] for k in order], [ALL[:6], ALL[6:]], tmp_path, n_workers=2)
    assert_same(permuted, alone, order)


def test_the_diverging_run_of_the_mixed_sweep_is_the_only_one(alone):
    histories, _ = alone
    assert [k for k, history in enumerate(histories) if history.diverged_at is not None] == [7]
    assert [history.epochs for history in histories] == [2, 2, 2, 2, 2, 2, 3, 0, 1, 2, 1, 2]


def test_a_worker_that_is_killed_costs_nothing(tmp_path):
    configs = mlps(4, epochs=60, checkpoint_seconds=0.0)
    histories, weights = trained(configs, [[0, 1, 2, 3]], tmp_path / "undisturbed")
    received, killed = Received(4), []

    def report(number, event):
        received.receive(number, event)
        if len(killed) < 3 and received.histories[number].epochs >= 10 * (len(killed) + 1):
            for pid in sorted(filter(alive, workers_of(os.getpid())))[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    carried_out(tasks_of(configs, [[0, 2], [1, 3]], tmp_path / "killed"), 2, report)
    assert len(set(killed)) == 3
    assert received.ends == {k: Ended() for k in range(4)}
    for k in range(4):
        assert np.array_equal(received.histories[k].loss_T, histories[k].loss_T)
        assert received.histories[k].evaluations == histories[k].evaluations
        again = tmp_path / "killed" / str(k) / "artifacts" / "model" / "state_dict.pt"
        same_weights(torch.load(again, weights_only=True), weights[k])


def same_weights(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_whose_workers_die_every_time_fails_alone(tmp_path):
    def report(number, event):
        received.receive(number, event)
        if number == 2 and isinstance(event, Epoch):
            for pid in filter(alive, workers_of(os.getpid())):
                os.kill(pid, signal.SIGKILL)

    received = Received(4)
    tasks = tasks_of(mlps(4, epochs=100, checkpoint_seconds=0.0), [[0, 1, 2], [3]], tmp_path)
    carried_out(tasks, 2, report)
    reason = "its worker process died, as it does when memory runs out"
    assert received.ends == {0: Ended(), 1: Ended(), 2: Ended(reason), 3: Ended()}
    assert [history.epochs for history in received.histories][:2] == [100, 100]
    assert received.histories[3].epochs == 100


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_ends_the_workers(tmp_path, interruption):
    seen = set()

    def report(number, event):
        seen.update(workers_of(os.getpid()))
        raise interruption

    started = time.monotonic()
    with pytest.raises(interruption):
        carried_out(tasks_of(mlps(2, epochs=100_000), [[0], [1]], tmp_path), 2, report)
    assert time.monotonic() - started < 60
    assert len(seen) == 2
    until(lambda: not any(alive(pid) for pid in seen), seconds=5)  # the kernel clears up


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("n_workers", [1, 2])
def test_runs_that_pause_and_go_on_beside_others_have_the_bits_of_those_that_never_do(
    alone, tmp_path, n_workers
):
    received, done = Received(len(MIXED)), []
    whole = tasks_of(MIXED, [ALL[::2], ALL[1::2]], tmp_path)

    def carried_on(tasks):
        left = iter(tasks)
        carry_out(
            lambda: next(left, None),
            [sources.load(MIXED[0].data)],
            n_workers,
            received.receive,
            done=lambda task: done.append({run.number for run in task.runs}),
        )

    steps = iterations_per_epoch(MIXED[0].data, load(MIXED[0].data).description)
    rungs = (steps - 5, steps + 3)
    for pause_at in (steps - 5, steps):
        carried_on(
            [
                replace(task, pause_at=pause_at, rungs=rungs).of(
                    run for run in task.runs if run.number not in received.ends
                )
                for task in whole
            ]
        )
    assert sorted(received.ends) == [7, 8, 10]  # one diverged, two had an epoch only
    whole = [replace(task, rungs=rungs) for task in whole]
    carried_on([task.of(run for run in task.runs if run.number not in received.ends) for task in whole])
    assert received.ends == {k: Ended() for k in ALL}
    assert sorted(map(len, done)) == [4, 5, 5, 6, 6, 6]
    for k, history in enumerate(received.histories):
        expected = alone[0][k]
        assert np.array_equal(history.loss_T, expected.loss_T, equal_nan=True)
        for split in ("test", "val"):
            assert history.of(split) == expected.of(split)
        assert history.rungs == [rung for rung in rungs if rung < len(expected.loss_T)]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_run_that_stops_early_where_others_pause_has_ended(tmp_path, n_workers):
    settings = {"epochs": 12, "val_size": 100}
    configs = [quiet(run_config(LOGREG, sgd(1.0), patience=n, **settings)) for n in (1, None)]
    [stopping] = train(configs[:1], load(configs[0].data))
    assert stopping.stopped_at == stopping.history.restored_epoch + 1 < 12
    received = Received(2)
    steps = iterations_per_epoch(configs[0].data, load(configs[0].data).description)
    for pause_at in (steps * stopping.history.restored_epoch, steps * stopping.stopped_at):
        assert received.ends == {}
        [task] = tasks_of(configs, [range(2)], tmp_path / str(pause_at))
        task = task.of(replace(run, folder=tmp_path / str(run.number)) for run in task.runs)
        for run in task.runs:
            run.folder.mkdir(exist_ok=True)
        carried_out([replace(task, pause_at=pause_at)], n_workers, received.receive)
    ended = Ended(stopped_at=stopping.stopped_at, restored_epoch=stopping.history.restored_epoch)
    assert received.ends == {0: ended}
    assert [history.epochs for history in received.histories] == [stopping.stopped_at] * 2
    weights = torch.load(tmp_path / "0" / "artifacts" / "model" / "state_dict.pt", weights_only=True)
    same_weights(weights, stopping.network.state_dict())


def immutable(path):
    changed = subprocess.run(["chattr", "+i", str(path)], capture_output=True, text=True)
    if changed.returncode:
        pytest.skip(f"nothing can be made immutable here: {changed.stderr.strip()}")


def immutable_journal(folder):
    (folder / "journal").touch()
    immutable(folder / "journal")


FAULTS = {
    "artifacts in the way": lambda folder: (folder / "artifacts").write_text("not a folder"),
    "a journal that is a folder": lambda folder: (folder / "journal").mkdir(),
    "a damaged journal": lambda folder: (folder / "journal").write_bytes(b"damaged\n"),
    "a checkpoint that can't be written": lambda folder: (folder / "checkpoint-1.part").mkdir(),
    "an immutable journal": immutable_journal,
    "an immutable folder": immutable,
}
HEALTHY = mlps(2, epochs=3, checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return trained(HEALTHY, [[0, 1]], tmp_path_factory.mktemp("healthy"))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_fault_of_a_folder_costs_its_run_alone(healthy, tmp_path, n_workers):
    """One array: its first and last run have no fault, each other one has another."""
    configs = [HEALTHY[0], *[HEALTHY[0]] * len(FAULTS), HEALTHY[1]]
    [task] = tasks_of(configs, [range(len(configs))], tmp_path)
    received = Received(len(configs))
    last = len(FAULTS) + 1
    try:
        for k, damage in enumerate(FAULTS.values(), start=1):
            damage(tmp_path / str(k))
        carried_out([task], n_workers, received.receive)
    finally:
        subprocess.run(["chattr", "-R", "-i", str(tmp_path)], capture_output=True)
    assert received.ends.keys() == set(range(len(configs)))
    assert [name for k, name in enumerate(FAULTS, start=1) if not received.ends[k].reason] == []
    assert "Traceback" in received.ends[1].trace
    for k, run in ((0, 0), (last, 1)):
        assert received.ends[k] == Ended()
        assert np.array_equal(received.histories[k].loss_T, healthy[0][run].loss_T)
        assert received.histories[k].evaluations == healthy[0][run].evaluations


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_array_that_cannot_train_fails_as_a_whole(tmp_path, n_workers):
    received = Received(2)  # minibatches of more than there are instances
    tasks = tasks_of(mlps(2, epochs=1, batch_size=1500), [[0], [1]], tmp_path)
    carried_out(tasks, n_workers, received.receive)
    reason = "ValueError: batch_size=1500: allowed: 1 to 1437"
    assert [received.ends[k].reason for k in (0, 1)] == [reason, reason]


def test_a_worker_holds_no_claims_of_the_folders_that_it_has_left(tmp_path):
    configs = mlps(2, epochs=1)
    for k, config in enumerate(configs):  # a cluster's worker has a folder for each attempt
        trained([config], [[0]], tmp_path / str(k), n_workers=2)
    opened = [os.readlink(f"/proc/{pid}/fd/{n}") for pid in workers_of(os.getpid()) for n in fds(pid)]
    assert opened and not [path for path in opened if path.startswith(str(tmp_path))]


def fds(pid):
    with os.scandir(f"/proc/{pid}/fd") as entries:
        return [entry.name for entry in entries]
