"""The peer of a search: Optuna's TPE and Hyperband over a tight PyTorch loop, one process per core.

`python -m benchmarks.optuna_peer DATA SEED LOG UNTIL` is one of these processes, with one thread. They share
a study in the journal file LOG, and stop at UNTIL, in seconds of Unix time. The loop is tight: data in
memory, fused SGD, no value read before an epoch's end.
"""

import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import nn

from lockstep.config.data_config import DataConfig, DigitsConfig, DownloadedConfig
from lockstep.data.datasets import load
from lockstep.data.minibatches import Minibatches, split

WIDTHS, MOMENTA = [128, 256, 512], [0.8, 0.9, 0.95]
LEAST_LR, GREATEST_LR, MOST_DROPOUT, BATCH = 0.003, 0.5, 0.5, 64


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


def study(log: str, seed: int, task: Task) -> optuna.Study:
    """Return the study in a journal file; create it if it isn't there."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(log)),
        study_name="peer",
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        pruner=optuna.pruners.HyperbandPruner(1, task.epochs, 3),
    )


def optimize(task: Task, seed: int, log: str, until: float) -> None:
    """Train trials of the study until then. A finished one has the attributes `at` (Unix time) and `test`."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    data = load(task.stream)
    train_N, val_N = split(data.description.n_train, task.val_size)
    held_out = [(data.x_train[val_N], data.y_train[val_N]), (data.x_test, data.y_test)]

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
            if time.time() >= until:
                trial.study.stop()
                raise optuna.TrialPruned
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("test", test)
        trial.set_user_attr("at", time.time())
        return val

    study(log, seed, task).optimize(objective, timeout=max(0.0, until - time.time()))


if __name__ == "__main__":
    _, name, seed, log, until = sys.argv
    optimize(next(task for task in TASKS if task.name == name), int(seed), log, float(until))
