"""Searches of equal seconds: Lockstep's command against Optuna over a tight PyTorch loop.

Both search the space of a user: learning rate (log), width, dropout, momentum; two hidden layers, minibatches
of 64, a constant learning rate. Both choose by validation accuracy; the test set only measures the choice.
Seconds count from the start of the processes: imports, reading the data, and what Lockstep records in MLflow.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
from loky import cpu_count
from optuna.trial import TrialState

from benchmarks import optuna_peer
from benchmarks.optuna_peer import GREATEST_LR, LEAST_LR, MOMENTA, MOST_DROPOUT, TASKS, WIDTHS, Task
from lockstep.data.datasets import load

ROOT = Path(__file__).resolve().parents[1]
TRIALS = 64
SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Found:
    """A trial that was trained to its end: when, in seconds from the start, and its accuracies."""

    at: float
    val: float
    test: float


@dataclass(frozen=True)
class Search:
    """One search.

    Attributes:
        seconds: from the start to the last process's exit.
        begun: when its trials began, in seconds from the start.
        found: the trials that were trained to their end.
    """

    data: str
    seed: int
    side: str
    seconds: float
    begun: tuple[float, ...]
    found: tuple[Found, ...]

    def found_at(self, seconds: float) -> list[Found]:
        """Return the trials that had been trained to their end then, the first one first."""
        return sorted((one for one in self.found if one.at <= seconds), key=lambda one: one.at)

    def best_at(self, seconds: float) -> Found | None:
        """Return the best of these by validation accuracy; of equal ones, the first."""
        return max(self.found_at(seconds), key=lambda one: one.val, default=None)

    def record(self) -> dict[str, Any]:
        """Return it as JSON holds it; `of_record` reads it back."""
        return asdict(self)


def of_record(record: dict[str, Any]) -> Search:
    """Return the search that `Search.record` gave."""
    begun, found = tuple(record["begun"]), tuple(Found(**one) for one in record["found"])
    return Search(**{**record, "begun": begun, "found": found})


def lockstep(task: Task, seed: int, n_trials: int = TRIALS) -> Search:
    """Search with the command that a user types."""
    with tempfile.TemporaryDirectory() as folder:
        uri, began = f"sqlite:///{folder}/mlflow.db", time.time()
        command = [
            *(sys.executable, str(ROOT / "run.py"), "-m", "hydra/sweeper=search"),
            *(f"hydra.sweeper.n_trials={n_trials}", f"hydra.sweeper.seed={seed}", f"data={task.name}"),
            *(f"data.val_size={task.val_size}", f"trainer.epochs={task.epochs}", "tracking.pictures=none"),
            f"optim.lr=tag(log, interval({LEAST_LR}, {GREATEST_LR}))",
            f"model.dropout=interval(0, {MOST_DROPOUT})",
            *(f"tracking.uri={uri}", f"hydra.sweep.dir={folder}/sweep"),
            f"model.hidden_dim1={','.join(map(str, WIDTHS))}",
            f"optim.momentum={','.join(map(str, MOMENTA))}",
        ]
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        if ended.returncode not in (0, 1):  # 1: a trial's loss diverged
            ended.check_returncode()
        seconds = time.time() - began
        runs = mlflow.MlflowClient(uri).search_runs(["1"], "metrics.`val/accuracy` > 0", max_results=1000)
    begun = tuple(run.info.start_time / 1000 - began for run in runs)
    found = tuple(
        Found(
            run.info.end_time / 1000 - began,
            run.data.metrics["val/accuracy"],
            run.data.metrics["test/accuracy"],
        )
        for run in runs
        if "lockstep.pruned_at" not in run.data.tags
    )
    return Search(task.name, seed, "Lockstep", seconds, begun, found)


def optuna_search(task: Task, seed: int, seconds: float) -> Search:
    """Search with Optuna's TPE and Hyperband until the seconds are over: a process per core."""
    with tempfile.TemporaryDirectory() as folder:
        log, began = f"{folder}/study.log", time.time()
        workers = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.optuna_peer", task.name),
                    *(str(seed * 1000 + index), log, str(began + seconds)),
                ],
                cwd=ROOT,
            )
            for index in range(cpu_count())
        ]
        if any([worker.wait() for worker in workers]):
            raise RuntimeError("a process of the peer failed")
        took, trials = time.time() - began, optuna_peer.study(log, seed, task).trials
    begun = tuple(trial.datetime_start.timestamp() - began for trial in trials if trial.datetime_start)
    found = tuple(
        Found(trial.user_attrs["at"] - began, trial.value, trial.user_attrs["test"])
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.value is not None
    )
    return Search(task.name, seed, "Optuna", took, begun, found)


def compare(table: Callable[[Sequence[str], Sequence[Sequence[str]]], None], seeds: int = 5) -> None:
    """Search with each seed on all data sets, and print the tables."""
    searches = []
    for task in TASKS:
        load(task.stream)
        for seed in range(seeds):
            searches.append(lockstep(task, seed))
            searches.append(optuna_search(task, seed, searches[-1].seconds))
    tables(table, searches)


def tables(
    table: Callable[[Sequence[str], Sequence[Sequence[str]]], None], searches: Sequence[Search]
) -> None:
    """Print what both searches of a seed had found when the first of them ended, and on the way there."""
    seconds = {
        key: min(one.seconds for one in searches if (one.data, one.seed) == key)
        for key in {(one.data, one.seed) for one in searches}
    }
    results, curves = [], []
    for task in TASKS:
        for side in ("Lockstep", "Optuna"):
            pairs = [
                (one, seconds[one.data, one.seed])
                for one in searches
                if one.data == task.name and one.side == side
            ]
            if pairs:
                curve = [[one.best_at(share * s) for one, s in pairs] for share in SHARES]
                results.append([task.name, side, *_result(pairs, [one for one in curve[-1] if one])])
                curves.append(
                    [task.name, side, *(_anytime([one for one in at if one], len(at)) for at in curve)]
                )
    heading = ["data", "search", "s", "trials trained to their end", "winner, val", "winner, test"]
    table(heading, results)
    table(["data", "search", *(f"val, test after {share:.0%}" for share in SHARES)], curves)


def _result(pairs: Sequence[tuple[Search, float]], winners: Sequence[Found]) -> list[str]:
    """Return the columns of a side, from its searches with the seconds that count."""
    seconds = [s for _, s in pairs]
    finished = statistics.fmean(len(one.found_at(s)) for one, s in pairs)
    begun = statistics.fmean(sum(at <= s for at in one.begun) for one, s in pairs)
    return [
        f"{statistics.fmean(seconds):.0f} ({min(seconds):.0f} - {max(seconds):.0f})",
        f"{finished:.0f} of {begun:.0f}",
        _with_error([one.val for one in winners]),
        _with_error([one.test for one in winners]),
    ]


def _with_error(values: Sequence[float]) -> str:
    """Return the mean and its standard error."""
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else "none"
    return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}"


def _anytime(found: Sequence[Found], n: int) -> str:
    """Return the mean accuracies; of how many, where not all searches have found something yet."""
    if not found:
        return "none yet"
    means = (statistics.fmean(getattr(one, split) for one in found) for split in ("val", "test"))
    return ", ".join(f"{mean:.4f}" for mean in means) + (f" ({len(found)} of {n})" if len(found) < n else "")
