"""Whole commands, as a user waits for them: from a new process to its exit."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import mlflow

from benchmarks import peers, searches
from benchmarks.optuna_peer import TASKS
from benchmarks.sitting import EPOCHS, QUICK, rounds, say, seconds, table
from benchmarks.trainings import MODELS, config, lockstep

ROOT = Path(__file__).resolve().parents[1]


def command(*arguments: str, uri: str | None = None) -> None:
    """Run run.py as a new process, with a new store unless one is given."""
    with tempfile.TemporaryDirectory() as folder:
        uri = uri or f"sqlite:///{folder}/mlflow.db"
        own = [f"tracking.uri={uri}", f"hydra.sweep.dir={folder}/sweep"]
        subprocess.run(
            [sys.executable, "run.py", "-m", *arguments, *own], cwd=ROOT, check=True, capture_output=True
        )


def whole_commands() -> None:
    """Time whole commands as a user waits for them: from a new process to its exit."""
    card = ["model.hidden_dim1=128,256", "optim.lr=1e-2,1e-3"]
    eight, no_pictures = ["seed=range(0,8)"], "tracking.pictures=none"
    thousand = ["data=digits", "model=logreg", "trainer.epochs=1", no_pictures, "seed=range(0,1000)"]
    n_loops = 1 if QUICK else 4
    loop = f"workshop's loop, 4 MLPs one after the other, 10 epochs ({40 // n_loops} times {n_loops} of 40)"
    of_card = "`make sweep`: 4 MLPs, 10 epochs, all metrics and pictures"
    with tempfile.TemporaryDirectory() as folder:
        kept = f"sqlite:///{folder}/mlflow.db"  # the warm-up round stores the runs
        sides: dict[str, Callable[[], object]] = {
            loop: lambda: [peers.workshop_loop("mlp") for _ in range(n_loops)],
            of_card: lambda: command(*card),
            "the same again, all stored": lambda: command(*card, uri=kept),
        }
        if not QUICK:
            sides |= {
                "8 MLPs, 10 epochs, all metrics and pictures": lambda: command(*eight),
                "the same without pictures": lambda: command(*eight, no_pictures),
                "the same, only the training: no command, no store, no pictures": lambda: lockstep(
                    [config(MODELS["mlp"], seed, epochs=10) for seed in range(8)]
                ),
                "1,000 logistic regressions on digits, one epoch, no pictures": lambda: command(*thousand),
                "these again, all stored": lambda: command(*thousand, uri=kept),
                "these with dry_run=true": lambda: command(*thousand, "dry_run=true"),
            }
        times = rounds(sides, n=1)
    times[loop] = [40 / n_loops * s for s in times[loop]]
    ratio = statistics.median(w / c for w, c in zip(times[loop], times[of_card], strict=True))
    rows = [[name, f"{statistics.median(of):.1f}"] for name, of in times.items()]
    rows.insert(2, ["**workshop's loop, ratio to `make sweep`**", f"**{ratio:.1f}**"])
    table(["command", "s"], rows)


def explore(*arguments: str) -> tuple[float, float, float]:
    """Run `experiment=explore`; return its seconds, and its winner's validation and test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        took = seconds(lambda: command("experiment=explore", *arguments, uri=uri))
        found = mlflow.MlflowClient(uri).search_runs(["1"], "metrics.`val/accuracy` > 0", max_results=1000)
    whole = [run.data.metrics for run in found if "lockstep.pruned_at" not in run.data.tags]
    best = max(whole, key=lambda metrics: metrics["val/accuracy"])
    return took, best["val/accuracy"], best["test/accuracy"]


def explored() -> None:
    """Compare a search with one run of the workshop's loop, and with random runs of the same total epochs.

    Then 64 trials of a space as a user types it, see `searches`, with that loop.
    """
    # 64 + 16 x 3 + 4 x 6 epochs at most: as many as 13 full runs.
    random = ("hydra.sweeper.pruner=none", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=13")
    rows, columns = [], dict[str, list[float]](loop=[], took=[], test=[], random=[])
    explore("hydra.sweeper.n_trials=8")  # warm-up: all libraries' files are in memory for the first timed one
    for seed in range(5):
        loop = seconds(lambda: [peers.workshop_loop("mlp") for _ in range(EPOCHS)])
        took, val, test = explore(f"hydra.sweeper.seed={seed}")
        # TPE's first trials are random: with the same seed, both would train the same networks.
        random_seed = f"hydra.sweeper.seed={seed + 100}"
        _, random_val, random_test = explore("tracking.pictures=none", random_seed, *random)
        for name, value in zip(columns, (loop, took, test, random_test), strict=True):
            columns[name].append(value)
        seconds_of = (f"{loop:.1f}", f"{took:.1f}")
        accuracies = (f"{value:.4f}" for value in (val, test, random_val, random_test))
        rows.append([str(seed), *seconds_of, *accuracies])
    loop, took, test, random_test = map(statistics.fmean, columns.values())
    rows.append(
        ["mean", f"**{loop:.1f}**", f"**{took:.1f}**", "", f"**{test:.4f}**", "", f"**{random_test:.4f}**"]
    )
    of_loop = ["search seed", f"workshop's loop, {EPOCHS} epochs: s"]
    table([*of_loop, "explore: s", "val", "test", "13 random runs: val", "test"], rows)
    mnist, typed = next(task for task in TASKS if task.name == "mnist"), []
    for seed in range(5):
        loop = seconds(lambda: [peers.workshop_loop("mlp") for _ in range(EPOCHS)])
        found = searches.lockstep(mnist, seed)
        best = found.best_at(found.seconds)
        assert best is not None  # it trains some to their end
        typed.append((loop, found.seconds, best.val, best.test))
    typed_rows = [[str(seed), *_typed_row(row)] for seed, row in enumerate(typed)]
    means = [statistics.fmean(column) for column in zip(*typed, strict=True)]
    say()
    table([*of_loop, "64 trials: s", "val", "test"], [*typed_rows, ["mean of all", *_typed_row(means)]])


def _typed_row(row: Sequence[float]) -> list[str]:
    loop, took, val, test = row
    return [f"{loop:.1f}", f"{took:.1f}", f"{val:.4f}", f"{test:.4f}"]
