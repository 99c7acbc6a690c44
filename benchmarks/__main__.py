"""`make bench`: Lockstep against its peers, all in one sitting, as Markdown in benchmarks/RESULTS.md.

A machine's speed drifts within minutes, so the sides of a comparison alternate, and ratios are taken within
each round; tables give medians over the rounds.
"""

import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path

import mlflow
import torch
from loky import cpu_count
from rich.console import Console

from benchmarks import peers
from benchmarks.peers import STREAM, Model
from lockstep.config.schema import (
    LogRegConfig,
    MLPConfig,
    RunConfig,
    SGDConfig,
    TrackingConfig,
    TrainerConfig,
)
from lockstep.data import datasets
from lockstep.execution import executor
from lockstep.execution.task import Task
from lockstep.recovery.journal import Ended
from lockstep.sweep import session

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
CORES = cpu_count()
ROUNDS = 3
EPOCHS = 10  # of Lockstep's runs, as in the workshop, written to files; a peer's call is one epoch
MODELS: dict[Model, LogRegConfig | MLPConfig] = {
    "logreg": LogRegConfig(name="logreg"),
    "mlp": MLPConfig(name="mlp", hidden_dims=(256, 100), dropout=0.25, activation="relu"),
}
# Useful FLOPs of a training step of one run: 2 B (3 W - W1), with W all weights and W1 those of the first
# layer: forward, gradients of the weights, gradients of the inputs of all layers but the first.
STEP_FLOPS = {"logreg": 2 * 64 * 2 * 7840, "mlp": 2 * 64 * (3 * (784 * 256 + 25_600 + 1_000) - 784 * 256)}

console = Console(soft_wrap=True, highlight=False)
lines: list[str] = []


def say(line: str = "") -> None:
    """Print a line, which also goes into the results."""
    console.print(line, markup=False)
    lines.append(line)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        say("| " + " | ".join(row) + " |")
    say()


def config(model: LogRegConfig | MLPConfig, seed: int, lr: float = 0.01, epochs: int = 1) -> RunConfig:
    """A run as the workshop configures it, that draws nothing."""
    return RunConfig(
        model=model,
        optim=SGDConfig(name="sgd", lr=lr, momentum=0.9, nesterov=False, weight_decay=0.0),
        data=STREAM,
        trainer=TrainerConfig(epochs=epochs, device="cpu", precision="float32", log_every=50),
        tracking=TrackingConfig(uri="unused", experiment="unused", pictures="none"),
        seed=seed,
    )


def lockstep(configs: Sequence[RunConfig]) -> None:
    """The runs, each epoch with its evaluation, on the workers that a sweep would have."""
    planned = session.plan_of(configs, n_jobs=-1)
    dataset, ended = datasets.load(STREAM), list[Ended]()
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(k) for k in range(len(configs))]
        for of_run in folders:
            of_run.mkdir()
        tasks = (
            Task(
                array.jobs,
                tuple(configs[k] for k in array.jobs),
                tuple(map(str, array.jobs)),
                tuple(folders[k] for k in array.jobs),
                dataset.digest,
                shared=Path(folder),
                threads=planned.threads,
                exact=False,
            )
            for array in planned.arrays
        )
        executor.carry_out(
            lambda: next(tasks, None),
            [dataset],
            planned.n_workers,
            lambda _, event: ended.append(event) if isinstance(event, Ended) else None,
        )
    assert [end.reason for end in ended] == [""] * len(configs), ended


def runs(model: Model, k: int, epochs: int) -> list[RunConfig]:
    """K equal runs that differ in seed and learning rate."""
    return [config(MODELS[model], seed, lr=0.01 + seed / 1e5, epochs=epochs) for seed in range(k)]


def mixed() -> list[RunConfig]:
    """A sweep of many kinds: logistic regressions and MLPs of different widths and depths."""
    widths = [(), (32, 16), (64,), (128, 100), (256, 100), (512, 100)]
    models = [
        MLPConfig(name="mlp", hidden_dims=dims, dropout=0.25, activation="relu") if dims else MODELS["logreg"]
        for dims in widths
    ]
    return [config(model, seed) for model in models for seed in range(4)]


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rounds(sides: Mapping[str, Callable[[], object]], n: int = ROUNDS) -> dict[str, list[float]]:
    """Each side's times, the sides in turn, after one round that isn't counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(n + 1):
        for name, work in sides.items():
            took = seconds(work)
            if index:
                times[name].append(took)
    return times


def compare(model: Model, k: int, sides: Mapping[str, tuple[Callable[[], object], int]]) -> None:
    """A table of seconds per run and epoch, and how many times as long as Lockstep's.

    Args:
        sides: what to call and how many runs' epochs that is.
    """
    ours = f"Lockstep, K = {k}"
    work = {ours: (lambda: lockstep(runs(model, k, EPOCHS)), k * EPOCHS), **sides}
    peaks: list[float] = []
    peak = {"matmul peak": lambda: peaks.append(peers.matmul_peak(CORES))}
    times = rounds({name: call for name, (call, _) in work.items()} | peak)
    per_run = {name: [t / n for t in times[name]] for name, (_, n) in work.items()}
    rows = []
    for name, of in per_run.items():
        ratios = [theirs / mine for theirs, mine in zip(of, per_run[ours], strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        rows.append([name, f"{statistics.median(of):.4f}", "1" if name == ours else ratio])
    table(["", "s a run and epoch", "times Lockstep's"], rows)
    flops = 937 * STEP_FLOPS[model]
    shares = [flops / t / 1e9 / peak for t, peak in zip(per_run[ours], peaks[1:], strict=True)]
    say(
        f"Useful FLOPs: {flops / 1e9:.1f} G a run and epoch; matmul peak {statistics.median(peaks):.0f}"
        f" GFLOP/s on {CORES} threads; share of it reached, evaluation and all else included:"
        f" {statistics.median(shares):.0%}."
    )
    say()


def of_peers(model: Model, k: int) -> dict[str, tuple[Callable[[], object], int]]:
    """All peers, and how many runs' epochs a call is."""
    sides: dict[str, tuple[Callable[[], object], int]] = {
        "workshop's loop": (lambda: peers.workshop_loop(model), 1),
        "eager loop, data in memory": (lambda: peers.eager_loop(model), 1),
        "scikit-learn MLPClassifier (no dropout)": (lambda: peers.scikit_learn(model), 1),
        f"torch.func.vmap, K = {k}": (lambda: peers.vmap(model, k), k),
    }
    if peers.jax_is_there():
        sides[f"JAX, jitted scan, K = {k}"] = (lambda: peers.jax_scan(model, k, vmapped=True), k)
        if k > 1:
            name = f"JAX, a scan for each of {k} runs, on threads"
            sides[name] = (lambda: peers.jax_scan(model, k, vmapped=False), k)
    return sides


def scaling(model: Model, sizes: Sequence[int]) -> None:
    """Seconds per run as K grows."""
    epochs = {k: max(1, min(EPOCHS, 96 // k)) for k in sizes}  # a large sweep's start counts for little
    times = rounds({str(k): lambda k=k: lockstep(runs(model, k, epochs[k])) for k in sizes}, n=2)
    row = [f"{statistics.median(times[str(k)]) / k / epochs[k]:.4f}" for k in sizes]
    table(["K", *map(str, sizes)], [["s a run and epoch", *row]])


def command(*arguments: str, uri: str | None = None) -> None:
    """run.py as a cold process, with a store of its own unless one is given."""
    with tempfile.TemporaryDirectory() as folder:
        uri = uri or f"sqlite:///{folder}/mlflow.db"
        own = [f"tracking.uri={uri}", f"hydra.sweep.dir={folder}/sweep"]
        subprocess.run(
            [sys.executable, "run.py", "-m", *arguments, *own], cwd=ROOT, check=True, capture_output=True
        )


def whole_commands() -> None:
    """What a user waits for, from cold process to exit."""
    card = ["model.hidden_dim1=128,256", "optim.lr=1e-2,1e-3"]
    eight = ["seed=range(0,8)"]
    thousand = [
        "data=digits",
        "model=logreg",
        "trainer.epochs=1",
        "tracking.pictures=none",
        "seed=range(0,1000)",
    ]
    times = rounds(
        {
            "workshop": lambda: [peers.workshop_loop("mlp") for _ in range(4)],
            "card": lambda: command(*card),
            "eight": lambda: command(*eight),
            "eight, numbers only": lambda: command(*eight, "tracking.pictures=none"),
            "eight, trained only": lambda: lockstep([config(MODELS["mlp"], s, epochs=10) for s in range(8)]),
            "thousand": lambda: command(*thousand),
            "plan": lambda: command(*thousand, "dry_run=true"),
        },
        n=1,
    )
    median = {name: statistics.median(of) for name, of in times.items()}
    ratio = statistics.median(10 * w / c for w, c in zip(times["workshop"], times["card"], strict=True))
    table(
        ["command", "s"],
        [
            ["the card's sweep: 4 MLPs, 10 epochs, everything logged and drawn", f"{median['card']:.1f}"],
            [
                "workshop's loop, 4 MLPs one after the other, 10 epochs (ten times one)",
                f"{10 * median['workshop']:.0f}",
            ],
            ["**times as long as the card's sweep**", f"**{ratio:.1f}**"],
            ["8 MLPs, 10 epochs, everything logged and drawn", f"{median['eight']:.1f}"],
            ["the same without pictures", f"{median['eight, numbers only']:.1f}"],
            [
                "the same training without command, store and pictures",
                f"{median['eight, trained only']:.1f}",
            ],
            ["1,000 logistic regressions on digits, one epoch, no pictures", f"{median['thousand']:.1f}"],
            ["planning those (dry_run=true), imports included", f"{median['plan']:.1f}"],
        ],
    )


def explore(*arguments: str) -> tuple[float, float, float]:
    """Seconds of `experiment=explore`; validation and test accuracy of its best run, by validation."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        took = seconds(lambda: command("experiment=explore", *arguments, uri=uri))
        found = mlflow.MlflowClient(uri).search_runs(["1"], "metrics.`val/accuracy` > 0", max_results=1000)
    whole = [run.data.metrics for run in found if "lockstep.pruned_at" not in run.data.tags]
    best = max(whole, key=lambda metrics: metrics["val/accuracy"])
    return took, best["val/accuracy"], best["test/accuracy"]


def searches() -> None:
    """Exploring against one workshop run, and against its own budget spent on random full-length runs."""
    # 64 + 16 x 3 + 4 x 6 epochs at most, as 13 whole runs.
    random = ("hydra.sweeper.pruner=none", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=13")
    rows, columns = [], dict[str, list[float]](loop=[], took=[], test=[], random=[])
    explore("hydra.sweeper.n_trials=8")  # so that the first one finds the files of all libraries in memory
    for seed in range(5):
        loop = seconds(lambda: [peers.workshop_loop("mlp") for _ in range(EPOCHS)])
        took, val, test = explore(f"hydra.sweeper.seed={seed}")
        # TPE's first trials are random: of the same seed, both would train the same networks.
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
    heading = ["search seed", f"workshop's loop, {EPOCHS} epochs: s", "explore, cold: s", "val", "test"]
    table([*heading, "13 random runs: val", "test"], rows)


def processor() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def main() -> None:
    """All sections, or those named on the command line."""
    sections: dict[str, Callable[[], None]] = {
        "One run of the workshop's MLP, 784-256-100-10": lambda: compare("mlp", 1, of_peers("mlp", 1)),
        "Eight such runs": lambda: compare("mlp", 8, of_peers("mlp", 8)),
        "Equal MLPs, K runs": lambda: scaling("mlp", (2, 4, 8, 16, 32, 256)),
        "A mixed sweep: 24 runs, six networks": lambda: table(
            ["", "s an epoch of the sweep"],
            [
                [name, f"{statistics.median(times):.2f}"]
                for name, times in rounds(
                    {
                        "as one sweep": lambda: lockstep(mixed()),
                        "run by run": lambda: [lockstep([one]) for one in mixed()],
                    },
                    n=3,
                ).items()
            ],
        ),
        "Logistic regression, one run": lambda: compare("logreg", 1, of_peers("logreg", 1)),
        "Logistic regression, 64 runs": lambda: compare("logreg", 64, of_peers("logreg", 64)),
        "Logistic regression, K runs": lambda: scaling("logreg", (1, 16, 64, 256)),
        "Whole commands": whole_commands,
        "A search": searches,
    }
    versions = ", ".join(
        f"{name} {metadata.version(name)}"
        for name in (
            "torch",
            "scikit-learn",
            "mlflow",
            "hydra-core",
            *(["jax"] if peers.jax_is_there() else []),
        )
    )
    datasets.load(STREAM)
    say("# Benchmarks")
    say()
    say(
        f"`make bench` on {date.today().isoformat()}: {processor()}, {CORES} cores, Python"
        f" {platform.python_version()}, {versions}. MNIST, batch 64, SGD with momentum; an epoch includes its"
        f" evaluation on the test set. Medians of {ROUNDS} rounds (K runs: 2; whole commands, searches: 1) in"
        " which the sides alternate, after one that isn't counted; in brackets the least and greatest ratio."
        f" Lockstep's runs have the workshop's {EPOCHS} epochs (K runs: fewer as K grows), start to"
        " written artifacts."
    )
    say()
    say(
        "Useful FLOPs of a step of one run are 2 B (3 W - W1), with B the batch, W all weights and W1 those"
        " of the first layer: forward, gradients of the weights, gradients of the inputs of all layers but"
        " the first."
    )
    say()
    for name, section in sections.items():
        if len(sys.argv) > 1 and not any(word.lower() in name.lower() for word in sys.argv[1:]):
            continue
        start = len(lines)
        say(f"## {name}")
        say()
        if len(sys.argv) > 1:
            say(f"(On {date.today().isoformat()}, later than the others: {processor()}, {versions}.)")
            say()
        section()
        if len(sys.argv) > 1:
            _replace_section(lines[start:])
    if len(sys.argv) == 1:
        RESULTS.write_text("\n".join(lines).rstrip() + "\n")


def _replace_section(section: Sequence[str]) -> None:
    """Put a section in its place in the results; one that isn't there comes last."""
    text, new = RESULTS.read_text(), "\n".join(section).rstrip() + "\n"
    parts = re.split(r"(?m)^(?=## )", text)
    at = next((k for k, part in enumerate(parts) if part.startswith(f"{section[0]}\n")), None)
    if at is None:
        RESULTS.write_text(f"{text.rstrip()}\n\n{new}")
        return
    parts[at] = new + ("\n" if at + 1 < len(parts) else "")
    RESULTS.write_text("".join(parts))


if __name__ == "__main__":
    torch.set_num_threads(CORES)
    main()
