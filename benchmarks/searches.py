"""Searches of equal seconds: Lockstep's command against Optuna over a tight PyTorch loop.

Both search the space of a user: learning rate (log), width, dropout, momentum; two hidden layers, minibatches
of 64, a constant learning rate. Both choose by validation accuracy; the test set only measures the choice.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import nn

from lockstep.config.schema import DataConfig, DigitsConfig, DownloadedConfig
from lockstep.data.datasets import load
from lockstep.data.minibatches import Minibatches, split

ROOT = Path(__file__).resolve().parents[1]
WIDTHS, MOMENTA = [128, 256, 512], [0.8, 0.9, 0.95]
LEAST_LR, GREATEST_LR, MOST_DROPOUT, BATCH, TRIALS = 0.003, 0.5, 0.5, 64, 64


@dataclass(frozen=True)
class Task:
    """A data set to search on; `val_size` training instances decide."""

    name: str
    val_size: int
    epochs: int

    @property
    def stream(self) -> DataConfig:
        """Its data settings."""
        shared: Any = {"batch_size": BATCH, "drop_last": True, "val_size": self.val_size, "shuffle_seed": 0}
        if self.name == "digits":
            return DigitsConfig(name="digits", **shared)
        return DownloadedConfig(
            name="mnist" if self.name == "mnist" else "fashion_mnist", root=None, **shared
        )


TASKS = (Task("digits", 300, 40), Task("mnist", 10_000, 10), Task("fashion_mnist", 10_000, 10))


@dataclass(frozen=True)
class Found:
    """A trial that was trained to its end: when, in seconds from the start, and its accuracies."""

    at: float
    val: float
    test: float


def best_at(found: Sequence[Found], seconds: float) -> Found | None:
    """Return the best trial by validation accuracy among those that had ended then."""
    return max((one for one in found if one.at <= seconds), key=lambda one: one.val, default=None)


def lockstep(task: Task, seed: int) -> tuple[float, list[Found]]:
    """Run a search as a user does; return the seconds of the whole command, and what it found."""
    with tempfile.TemporaryDirectory() as folder:
        uri, began = f"sqlite:///{folder}/mlflow.db", time.time()
        command = [
            *(sys.executable, str(ROOT / "run.py"), "-m", "hydra/sweeper=search"),
            *(f"hydra.sweeper.n_trials={TRIALS}", f"hydra.sweeper.seed={seed}", f"data={task.name}"),
            *(f"data.val_size={task.val_size}", f"trainer.epochs={task.epochs}", "tracking.pictures=none"),
            f"optim.lr=tag(log, interval({LEAST_LR}, {GREATEST_LR}))",
            f"model.dropout=interval(0, {MOST_DROPOUT})",
            *(f"tracking.uri={uri}", f"hydra.sweep.dir={folder}/sweep"),
            f"model.hidden_dim1={','.join(map(str, WIDTHS))}",
            f"optim.momentum={','.join(map(str, MOMENTA))}",
        ]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        seconds = time.time() - began
        runs = mlflow.MlflowClient(uri).search_runs(["1"], "metrics.`val/accuracy` > 0", max_results=1000)
    found = [
        Found(
            run.info.end_time / 1000 - began,
            run.data.metrics["val/accuracy"],
            run.data.metrics["test/accuracy"],
        )
        for run in runs
        if "lockstep.pruned_at" not in run.data.tags
    ]
    return seconds, found


def optuna_search(task: Task, seed: int, seconds: float) -> list[Found]:
    """Search with Optuna's TPE and Hyperband until the seconds are over: a process per core, one thread each.

    The loop is tight: data in memory, fused SGD, no value read before an epoch's end.
    """
    began = time.time()
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/study.log"
        _study(log, seed, task)
        context = multiprocessing.get_context("spawn")
        cores = os.cpu_count() or 1
        workers = [
            context.Process(target=_optimize, args=(log, seed * 1000 + index, task, began, seconds))
            for index in range(cores)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        trials = _study(log, seed, task).trials
    return [
        Found(trial.user_attrs["at"] - began, trial.value, trial.user_attrs["test"])
        for trial in trials
        if trial.state == optuna.trial.TrialState.COMPLETE and trial.value is not None
    ]


def _study(log: str, seed: int, task: Task) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(log)),
        study_name="peer",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        pruner=optuna.pruners.HyperbandPruner(1, task.epochs, 3),
    )


def _optimize(log: str, seed: int, task: Task, began: float, seconds: float) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    data = load(task.stream)
    train_N, val_N = split(data.description.n_train, task.val_size)
    held_out = [(data.x_train[val_N], data.y_train[val_N]), (data.x_test, data.y_test)]

    def is_over() -> bool:
        return time.time() - began >= seconds

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", LEAST_LR, GREATEST_LR, log=True)
        width = trial.suggest_categorical("width", WIDTHS)
        dropout = trial.suggest_float("dropout", 0.0, MOST_DROPOUT)
        momentum = trial.suggest_categorical("momentum", MOMENTA)
        sizes = [data.description.n_features, width, 100]
        hidden = [
            part
            for n_in, n_out in pairwise(sizes)
            for part in (nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout))
        ]
        module = nn.Sequential(*hidden, nn.Linear(100, data.description.n_classes))
        optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=momentum, fused=True)
        batches = Minibatches(train_N, BATCH, True, torch.Generator().manual_seed(trial.number))
        for epoch in range(1, task.epochs + 1):
            module.train()
            for indices_B in batches.epoch():
                loss = nn.functional.cross_entropy(module(data.x_train[indices_B]), data.y_train[indices_B])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            module.eval()
            with torch.no_grad():
                val, test = ((module(x).argmax(1) == y).float().mean().item() for x, y in held_out)
            trial.report(val, epoch)
            if is_over():
                trial.study.stop()
                raise optuna.TrialPruned
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("test", test)
        trial.set_user_attr("at", time.time())
        return val

    _study(log, seed, task).optimize(objective, timeout=max(0.0, began + seconds - time.time()))


def compare(
    table: Callable[[Sequence[str], Sequence[Sequence[str]]], None],
    tasks: Sequence[Task] = TASKS,
    seeds: int = 5,
) -> None:
    """Compare searches of equal seconds: best validation accuracy over time, the winner's on the test set."""
    shares, rows = (0.25, 0.5, 0.75, 1.0), []
    for task in tasks:
        load(task.stream)
        sides = {"Lockstep": list[tuple[float, list[Found]]](), "Optuna": list[tuple[float, list[Found]]]()}
        for seed in range(seeds):
            seconds, found = lockstep(task, seed)
            sides["Lockstep"].append((seconds, found))
            sides["Optuna"].append((seconds, optuna_search(task, seed, seconds)))
        for side, searches in sides.items():
            curve = [[best_at(found, share * s) for s, found in searches] for share in shares]
            tests = [one.test for one in curve[-1] if one is not None]
            error = statistics.stdev(tests) / len(tests) ** 0.5 if len(tests) > 1 else float("nan")
            rows.append(
                [
                    f"{task.name}, {statistics.fmean(s for s, _ in searches):.0f} s",
                    side,
                    *(_mean([one.val for one in at if one is not None], len(at)) for at in curve),
                    f"{statistics.fmean(tests):.4f} ± {error:.4f}" if tests else "none",
                ]
            )
    table(["data", "search", *(f"val after {share:.0%}" for share in shares), "test, mean ± s.e."], rows)


def _mean(values: Sequence[float], n: int) -> str:
    """Return the mean; of how many, where not all searches have found something yet."""
    if not values:
        return "none yet"
    return f"{statistics.fmean(values):.4f}" + (f" ({len(values)} of {n})" if len(values) < n else "")
