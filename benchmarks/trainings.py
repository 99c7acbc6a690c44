"""Training alone: Lockstep's workers against the peers, in seconds per run and epoch."""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loky import cpu_count

from benchmarks import nets, peers
from benchmarks.peers import STREAM, Model
from benchmarks.sitting import EPOCHS, QUICK, rounds, say, table
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

CORES = cpu_count()
MODELS: dict[Model, LogRegConfig | MLPConfig] = {
    "logreg": LogRegConfig(name="logreg"),
    "mlp": MLPConfig(name="mlp", hidden_dims=(256, 100), dropout=0.25, activation="relu"),
}
# Useful FLOPs of a training step of one run: 2 B (3 W - W1), where W counts all weights and W1 those of the
# first layer: forward, gradients of the weights, gradients of the inputs of all layers except the first.
STEP_FLOPS = {"logreg": 2 * 64 * 2 * 7840, "mlp": 2 * 64 * (3 * (784 * 256 + 25_600 + 1_000) - 784 * 256)}


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
    """Return the peers, as `compare` takes them; in a quick sitting the workshop's loop and the fastest."""
    sides: dict[str, tuple[Callable[[], object], int]] = {
        "workshop's loop": (lambda: peers.workshop_loop(model), 1),
    }
    if not QUICK or not peers.jax_is_there():
        sides |= {
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
