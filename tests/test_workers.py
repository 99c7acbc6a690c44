"""Arrays in worker processes: the same numbers as in this one, and what happens when something breaks."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from test_train import LOGREG, MLP, run_config, sgd

from lockstep import workers
from lockstep.config import AdamConfig, MLPConfig
from lockstep.data import load
from lockstep.train import Epoch, History
from lockstep.workers import Ended, Task, carry_out

ADAM = AdamConfig(name="adam", lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
WIDE = MLPConfig(name="mlp", hidden_dims=(512, 256), dropout=0.5, activation="tanh")
DEEP = MLPConfig(name="mlp", hidden_dims=(20, 10, 5), dropout=0.0, activation="sigmoid")


def quiet(config):
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"pictures": "none"})})


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


class Heard:
    def __init__(self, n_jobs):
        self.histories = [History() for _ in range(n_jobs)]
        self.ends = {}

    def tell(self, job, event):
        assert job not in self.ends
        if isinstance(event, Epoch):
            self.histories[job].add(event)
        else:
            self.ends[job] = event


def trained(configs, arrays, folder, n_workers=1, exact=False):
    """Each run's history and the bytes of its weights, trained in the given arrays."""
    folders = [folder / str(k) for k in range(len(configs))]
    for path in folders:
        path.mkdir(parents=True)
    tasks = [
        Task(
            tuple(array),
            tuple(configs[k] for k in array),
            tuple(f"run {k}" for k in array),
            tuple(folders[k] for k in array),
            folder,
            threads=1,
            exact=exact,
        )
        for array in arrays
    ]
    heard = Heard(len(configs))
    carry_out(tasks, [load(configs[0].data)] * len(tasks), n_workers, heard.tell)
    assert heard.ends == {k: Ended() for k in range(len(configs))}
    weights = [path / "model" / "state_dict.pt" for path in folders]
    return heard.histories, [
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


def tasks_of(n_tasks, folder, **settings):
    configs = [quiet(run_config(MLP, seed=seed, **settings)) for seed in range(n_tasks)]
    tasks = []
    for k, config in enumerate(configs):
        (folder / str(k)).mkdir()
        tasks.append(Task((k,), (config,), (f"run {k}",), (folder / str(k),), folder, threads=1, exact=False))
    return tasks, [load(configs[0].data)] * n_tasks


def pids():
    return set(get_reusable_executor(reuse=True)._processes)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_runs_of_a_worker_that_dies_are_told_to_have_failed(tmp_path):
    tasks, datasets = tasks_of(4, tmp_path, epochs=400)
    heard, killed = Heard(4), []

    def tell(job, event):
        heard.tell(job, event)
        if not killed:
            killed.append(pids().pop())
            os.kill(killed[0], signal.SIGKILL)

    carry_out(tasks, datasets, 2, tell)
    assert sorted(heard.ends) == [0, 1, 2, 3]
    failed = [end.reason for end in heard.ends.values() if end.reason]
    assert failed
    assert all(reason.startswith("TerminatedWorkerError: ") for reason in failed)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_ends_the_workers(tmp_path, interruption):
    tasks, datasets = tasks_of(2, tmp_path, epochs=100_000)
    seen = set()

    def tell(job, event):
        seen.update(pids())
        raise interruption

    started = time.monotonic()
    with pytest.raises(interruption):
        carry_out(tasks, datasets, 2, tell)
    assert time.monotonic() - started < 60
    assert len(seen) == 2
    assert not any(alive(pid) for pid in seen)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_run_that_cannot_be_written_fails_and_the_others_go_on(tmp_path, n_workers):
    tasks, datasets = tasks_of(2, tmp_path, epochs=1)
    (tmp_path / "1" / "config.yaml").mkdir()  # in the way of a file
    heard = Heard(2)
    carry_out(tasks, datasets, n_workers, heard.tell)
    assert heard.ends[0] == Ended()
    assert heard.ends[1].reason.startswith("IsADirectoryError: ")
    assert "Traceback" in heard.ends[1].trace


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_array_that_cannot_train_fails_as_a_whole(tmp_path, n_workers):
    tasks, datasets = tasks_of(2, tmp_path, epochs=1, batch_size=1500)  # more than there are instances
    heard = Heard(2)
    carry_out(tasks, datasets, n_workers, heard.tell)
    assert [heard.ends[k].reason for k in (0, 1)] == ["ValueError: batch_size=1500: allowed: 1 to 1437"] * 2


def test_a_journal_is_read_while_it_is_written(tmp_path):
    heard = []
    reader = workers._Reader(tmp_path / "journal")
    first, second = (workers._entry(k, Ended(f"reason {k}")) for k in (3, 4))
    numbers = []
    with (tmp_path / "journal").open("ab", buffering=0) as file:
        for written in (b"", first[:5], first[5:20], first[20:] + second[:9], second[9:]):
            file.write(written)
            reader.read(lambda job, event: heard.append((job, event.reason)))
            numbers.append(len(heard))
    assert numbers == [0, 0, 0, 1, 2]
    assert heard == [(3, "reason 3"), (4, "reason 4")]
