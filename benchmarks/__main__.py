"""`make bench`: compare Lockstep with its peers on one machine, and write benchmarks/RESULTS.md.

A machine's speed drifts within minutes. So the sides of a comparison alternate, ratios are taken within each
round, and tables give medians over the rounds.
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

from benchmarks import nets, peers, searches
from benchmarks.peers import STREAM, Model
from lockstep.config.model_config import LogRegConfig, MLPConfig, ModuleConfig
from lockstep.config.optim_config import SGDConfig
from lockstep.config.schema import RunConfig, TrainerConfig
from lockstep.config.tracking_config import TrackingConfig
from lockstep.data import sources
from lockstep.execution import executor
from lockstep.execution.task import Task, TaskRun
from lockstep.recovery.journal import Ended
from lockstep.sweep.planning import plan_of
from lockstep.training import network_code

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
CORES = cpu_count()
ROUNDS = 3
EPOCHS = 10  # of Lockstep's runs, as in the workshop, with result files; a peer trains one epoch per call
MODELS: dict[Model, LogRegConfig | MLPConfig] = {
    "logreg": LogRegConfig(name="logreg"),
    "mlp": MLPConfig(name="mlp", hidden_dims=(256, 100), dropout=0.25, activation="relu"),
}
# Useful FLOPs of a training step of one run: 2 B (3 W - W1), where W counts all weights and W1 those of the
# first layer: forward, gradients of the weights, gradients of the inputs of all layers except the first.
STEP_FLOPS = {"logreg": 2 * 64 * 2 * 7840, "mlp": 2 * 64 * (3 * (784 * 256 + 25_600 + 1_000) - 784 * 256)}

console = Console(soft_wrap=True, highlight=False)
lines: list[str] = []


def say(line: str = "") -> None:
    """Print a line and add it to the results."""
    console.print(line, markup=False)
    lines.append(line)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table and add it to the results."""
    for row in (head, ["---"] * len(head), *rows):
        say("| " + " | ".join(row) + " |")
    say()


def config(
    model: LogRegConfig | MLPConfig | ModuleConfig, seed: int, lr: float = 0.01, epochs: int = 1
) -> RunConfig:
    """Return the config of a run as in the workshop, without pictures."""
    return RunConfig(
        model=model,
        optim=SGDConfig(name="sgd", lr=lr, momentum=0.9, nesterov=False, weight_decay=0.0),
        data=STREAM,
        trainer=TrainerConfig(epochs=epochs, device="cpu", precision="float32", log_every=50),
        tracking=TrackingConfig(uri="unused", experiment="unused", pictures="none"),
        seed=seed,
    )


def lockstep(configs: Sequence[RunConfig]) -> None:
    """Train the runs, with an evaluation after each epoch, on the workers that a sweep uses."""
    planned = plan_of(configs, n_jobs=-1)
    source, ended = sources.load(STREAM), list[Ended]()
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(k) for k in range(len(configs))]
        for of_run in folders:
            of_run.mkdir()
        tasks = (
            Task(
                tuple(TaskRun(k, configs[k], str(k), folders[k]) for k in array.runs),
                source.description.digest,
                shared=Path(folder),
                threads=planned.threads,
                exact=False,
                code=network_code.needed_by(configs),
            )
            for array in planned.arrays
        )
        executor.carry_out(
            lambda: next(tasks, None),
            [source],
            planned.n_workers,
            lambda _, event: ended.append(event) if isinstance(event, Ended) else None,
        )
    assert [end.reason for end in ended] == [""] * len(configs), ended


def runs(model: Model, k: int, epochs: int) -> list[RunConfig]:
    """Return the configs of K runs that differ in seed and learning rate only."""
    return [config(MODELS[model], seed, lr=0.01 + seed / 1e5, epochs=epochs) for seed in range(k)]


def mixed() -> list[RunConfig]:
    """Return a mixed sweep: logistic regressions and MLPs of different widths and depths."""
    widths = [(), (32, 16), (64,), (128, 100), (256, 100), (512, 100)]
    models = [
        MLPConfig(name="mlp", hidden_dims=dims, dropout=0.25, activation="relu") if dims else MODELS["logreg"]
        for dims in widths
    ]
    return [config(model, seed) for model in models for seed in range(4)]


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rounds(sides: Mapping[str, Callable[[], object]], n: int = ROUNDS) -> dict[str, list[float]]:
    """Time all sides in turn, `n` rounds after a warm-up round; return the times of each side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(n + 1):
        for name, work in sides.items():
            took = seconds(work)
            if index:
                times[name].append(took)
    return times


def compare(model: Model, k: int, sides: Mapping[str, tuple[Callable[[], object], int]]) -> None:
    """Print a table of seconds per run and epoch, and the ratio to Lockstep's.

    Args:
        sides: name → what to call, and the number of epochs, summed over runs, that one call trains.
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
    table(["", "s per run and epoch", "ratio to Lockstep"], rows)
    flops = 937 * STEP_FLOPS[model]
    shares = [flops / t / 1e9 / peak for t, peak in zip(per_run[ours], peaks[1:], strict=True)]
    say(
        f"Useful FLOPs: {flops / 1e9:.1f} G per run and epoch. Matmul peak: {statistics.median(peaks):.0f}"
        f" GFLOP/s on {CORES} threads. Share of the peak, with evaluation and all overhead:"
        f" {statistics.median(shares):.0%}."
    )
    say()


def of_peers(model: Model, k: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Return the peers, as `compare` takes them."""
    sides: dict[str, tuple[Callable[[], object], int]] = {
        "workshop's loop": (lambda: peers.workshop_loop(model), 1),
        "eager loop, data in memory": (lambda: peers.eager_loop(model), 1),
        "scikit-learn MLPClassifier (no dropout)": (lambda: peers.scikit_learn(model), 1),
        f"torch.func.vmap, K = {k}": (lambda: peers.vmap(model, k), k),
    }
    if peers.jax_is_there():
        vmapped = "one vmapped" if k > 1 else "one"
        sides[f"JAX, {vmapped} jitted scan, K = {k}"] = (lambda: peers.jax_scan(model, k, vmapped=True), k)
        if k > 1:
            name = f"JAX, one jitted scan for each of {k} runs, on threads"
            sides[name] = (lambda: peers.jax_scan(model, k, vmapped=False), k)
    return sides


def convolutional() -> None:
    """Compare sweeps of convolutional networks of the user's own with the workshop's loop."""
    epochs, rows = 2, []
    for network, k, threads in ((nets.LeNet, 4, 1), (nets.Normalised, 4, 1), (nets.Wide, 1, CORES)):
        path = f"{nets.__file__}:{network.__name__}"
        model = ModuleConfig(name="module", path=path, source=network_code.read(path).source)
        of_run = config(model, 0, epochs=epochs)
        trainer = of_run.trainer.model_copy(update={"threads": threads})
        configs = [of_run.model_copy(update={"seed": seed, "trainer": trainer}) for seed in range(k)]
        sides = {"ours": lambda c=configs: lockstep(c), "loop": lambda n=network: peers.workshop_loop(n)}
        times = rounds(sides)
        ours = [of / k / epochs for of in times["ours"]]
        ratios = [theirs / mine for theirs, mine in zip(times["loop"], ours, strict=True)]
        rows.append(
            [
                f"{k} x {network.__name__}" + (f", {threads} threads" if threads > 1 else ""),
                f"{statistics.median(ours):.2f}",
                f"{statistics.median(times['loop']):.2f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})",
            ]
        )
    table(["", "Lockstep: s per run and epoch", "workshop's loop", "ratio to Lockstep"], rows)


def scaling(model: Model, sizes: Sequence[int]) -> None:
    """Print seconds per run and epoch as K grows."""
    epochs = {k: max(1, min(EPOCHS, 96 // k)) for k in sizes}  # the start-up of a large sweep matters little
    times = rounds({str(k): lambda k=k: lockstep(runs(model, k, epochs[k])) for k in sizes}, n=2)
    row = [f"{statistics.median(times[str(k)]) / k / epochs[k]:.4f}" for k in sizes]
    table(["K", *map(str, sizes)], [["s per run and epoch", *row]])


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
            ["`make sweep`: 4 MLPs, 10 epochs, all metrics and pictures", f"{median['card']:.1f}"],
            [
                "workshop's loop, 4 MLPs one after the other, 10 epochs (ten times one epoch)",
                f"{10 * median['workshop']:.0f}",
            ],
            ["**workshop's loop, ratio to `make sweep`**", f"**{ratio:.1f}**"],
            ["8 MLPs, 10 epochs, all metrics and pictures", f"{median['eight']:.1f}"],
            ["the same without pictures", f"{median['eight, numbers only']:.1f}"],
            [
                "the same, only the training: no command, no store, no pictures",
                f"{median['eight, trained only']:.1f}",
            ],
            ["1,000 logistic regressions on digits, one epoch, no pictures", f"{median['thousand']:.1f}"],
            ["the same with dry_run=true", f"{median['plan']:.1f}"],
        ],
    )


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
    """Compare a search with one run of the workshop's loop, and with random runs of the same total epochs."""
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
    heading = ["search seed", f"workshop's loop, {EPOCHS} epochs: s", "explore: s", "val", "test"]
    table([*heading, "13 random runs: val", "test"], rows)


def processor() -> str:
    """Return the processor's name, on Linux as /proc/cpuinfo gives it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def main() -> None:
    """Run all sections, or those named on the command line."""
    sections: dict[str, Callable[[], None]] = {
        "One run of the workshop's MLP, 784-256-100-10": lambda: compare("mlp", 1, of_peers("mlp", 1)),
        "Eight such runs": lambda: compare("mlp", 8, of_peers("mlp", 8)),
        "Equal MLPs, K runs": lambda: scaling("mlp", (2, 4, 8, 16, 32, 256)),
        "A mixed sweep: 24 runs, six networks": lambda: table(
            ["", "s per epoch of the sweep"],
            [
                [name, f"{statistics.median(times):.2f}"]
                for name, times in rounds(
                    {
                        "all runs as one sweep": lambda: lockstep(mixed()),
                        "one run after the other": lambda: [lockstep([one]) for one in mixed()],
                    },
                    n=3,
                ).items()
            ],
        ),
        "Logistic regression, one run": lambda: compare("logreg", 1, of_peers("logreg", 1)),
        "Logistic regression, 64 runs": lambda: compare("logreg", 64, of_peers("logreg", 64)),
        "Logistic regression, K runs": lambda: scaling("logreg", (1, 16, 64, 256)),
        "Convolutional networks (benchmarks/nets.py)": convolutional,
        "Whole commands": whole_commands,
        "A search": explored,
        "Searches of equal seconds: Lockstep's 64 trials against Optuna's TPE and Hyperband": (
            lambda: searches.compare(table)
        ),
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
    sources.load(STREAM)
    say("# Benchmarks")
    say()
    say(
        f"`make bench` on {date.today().isoformat()}: {processor()}, {CORES} cores, Python"
        f" {platform.python_version()}, {versions}. MNIST, minibatches of 64, SGD with momentum. An epoch"
        " includes its evaluation on the test set. Lockstep's runs train the workshop's"
        f" {EPOCHS} epochs (fewer in the tables over K), and their time includes start-up and result files."
    )
    say()
    say(
        f"The sides of a comparison alternate. Figures are medians of {ROUNDS} rounds (tables over K: 2;"
        " whole commands and searches: 1) after a warm-up round. The smallest and largest ratio are in"
        " parentheses. A ratio above 1 means that Lockstep is faster."
    )
    say()
    say(
        "Useful FLOPs of one step of one run: 2 B (3 W - W1), where B is the batch size, W the number of"
        " weights, and W1 that of the first layer: forward, gradients of the weights, gradients of the inputs"
        " of all layers except the first."
    )
    say()
    for name, section in sections.items():
        if len(sys.argv) > 1 and not any(word.lower() in name.lower() for word in sys.argv[1:]):
            continue
        start = len(lines)
        say(f"## {name}")
        say()
        if len(sys.argv) > 1:
            say(f"(Measured later, on {date.today().isoformat()}: {processor()}, {versions}.)")
            say()
        section()
        if len(sys.argv) > 1:
            _replace_section(lines[start:])
    if len(sys.argv) == 1:
        RESULTS.write_text("\n".join(lines).rstrip() + "\n")


def _replace_section(section: Sequence[str]) -> None:
    """Replace a section of the results; append a new one."""
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
