"""`python -m benchmarks.gpu`: time runs on a CUDA device, in a few minutes; print tables for RESULTS.md.

A run's time for an epoch is that of its array's epochs, evaluation included, divided by the array's runs. The
first epoch, in which buffers are allocated and graphs recorded, is left out. The arrays are those that a
sweep would train, one after the other.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch

from benchmarks import nets
from benchmarks.peers import STREAM
from lockstep.config.model_config import LogRegConfig, MLPConfig, ModuleConfig
from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.config.schema import RunConfig, TrainerConfig
from lockstep.config.tracking_config import TrackingConfig
from lockstep.data import datasets
from lockstep.data.datasets import Dataset
from lockstep.data.description import iterations_per_epoch
from lockstep.sweep.planning import plan_of
from lockstep.training import network_code
from lockstep.training.loop import TrainedRun, train

MLP = MLPConfig(name="mlp", hidden_dims=(256, 100), dropout=0.25, activation="relu")
LOGREG = LogRegConfig(name="logreg")
SGD = SGDConfig(name="sgd", lr=0.01, momentum=0.9, nesterov=False, weight_decay=0.0)
ADAM = AdamConfig(name="adam", lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
# As in benchmarks/__main__.py: useful FLOPs of a step.
MLP_FLOPS = 2 * 64 * (3 * (784 * 256 + 25_600 + 1_000) - 784 * 256)


def lenet() -> ModuleConfig:
    """Return the config of a LeNet-5."""
    path = f"{nets.__file__}:LeNet"
    return ModuleConfig(name="module", path=path, source=network_code.read(path).source)


def configs(
    k: int,
    model: MLPConfig | LogRegConfig | ModuleConfig = MLP,
    optim: SGDConfig | AdamConfig = SGD,
    epochs: int = 3,
    device: Literal["cpu", "cuda"] = "cuda",
    precision: Literal["float32", "bfloat16"] = "float32",
) -> list[RunConfig]:
    """Return k runs that differ in their seed."""
    trainer = TrainerConfig(
        epochs=epochs, device=device, precision=precision, log_every=50, checkpoint_seconds=1e9
    )
    tracking = TrackingConfig(uri="unused", experiment="unused", pictures="none")
    return [
        RunConfig(model=model, optim=optim, data=STREAM, trainer=trainer, tracking=tracking, seed=seed)
        for seed in range(k)
    ]


def trained(runs: Sequence[RunConfig], dataset: Dataset) -> tuple[list[TrainedRun], float]:
    """Train runs in the arrays of a sweep; return them and the seconds of a run's epoch."""
    done, seconds = list[TrainedRun](), 0.0
    for array in plan_of(runs, n_jobs=1).arrays:
        ends: list[float] = []

        def after_epoch(k: int, run: TrainedRun, epoch: object, ends: list[float] = ends) -> None:
            if k == 0:
                ends.append(time.perf_counter())

        done += train([runs[k] for k in array.runs], dataset, after_epoch)
        seconds += statistics.median(end - start for start, end in pairwise(ends))
    return done, seconds / len(runs)


def peak(dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large product."""
    a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    times = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.mm(a, a)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return 2 * 8192**3 / statistics.median(times)


def times(dataset: Dataset) -> None:
    """Print the times of arrays of several sizes."""
    peaks = {name: peak(getattr(torch, name)) for name in ("float32", "bfloat16")}
    print(", ".join(f"{name} {flops / 1e12:.0f} TFLOP/s" for name, flops in peaks.items()), flush=True)
    print("| runs | ms a run and epoch | share of the peak | memory, GiB | test accuracy |", flush=True)
    steps = iterations_per_epoch(STREAM, dataset.description)
    for name, runs in {
        "1 MLP": configs(1),
        "64 MLPs": configs(64, epochs=10),
        "512 MLPs": configs(512),
        "4,096 MLPs": configs(4096, epochs=2),
        "512 MLPs, Adam": configs(512, optim=ADAM),
        "512 MLPs, bfloat16": configs(512, precision="bfloat16"),
        "512 logistic regressions": configs(512, LOGREG),
        "16 LeNets": configs(16, lenet(), epochs=2),
    }.items():
        torch.cuda.reset_peak_memory_stats()
        done, seconds = trained(runs, dataset)
        share = ""
        if "MLP" in name:
            share = f"{100 * MLP_FLOPS * steps / seconds / peaks[runs[0].trainer.precision]:.0f} %"
        accuracies = [run.history.of("test")[-1].accuracy for run in done]
        spread = f" ± {statistics.stdev(accuracies):.4f}" if len(done) > 1 else ""
        accuracy = f"{statistics.mean(accuracies):.4f}{spread} after {runs[0].trainer.epochs} epochs"
        memory = torch.cuda.max_memory_allocated() / 2**30
        print(f"| {name} | {1000 * seconds:.2f} | {share} | {memory:.1f} | {accuracy} |", flush=True)


def against_the_cpu(dataset: Dataset) -> None:
    """Print what the same runs reach on both devices."""
    devices: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")
    for device in devices:
        done = train(configs(8, epochs=5, device=device), dataset)
        accuracies = [run.history.of("test")[-1].accuracy for run in done]
        mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
        print(f"8 MLPs, 5 epochs, {device}: {mean:.4f} ± {spread:.4f}", flush=True)


def identity(dataset: Dataset) -> None:
    """Print what a run's bits depend on."""

    def bits(runs: Sequence[RunConfig]) -> dict[int, bytes]:
        done = train(runs, dataset)
        return {
            run.config.seed: torch.cat([p.flatten() for p in run.network.parameters()])
            .cpu()
            .detach()
            .numpy()
            .tobytes()
            for run in done
        }

    for model in (MLP, LOGREG):
        of_64 = bits(configs(64, model, epochs=1))
        others = {
            "again": bits(configs(64, model, epochs=1)),
            "in reverse": bits(configs(64, model, epochs=1)[::-1]),
            "of 512": bits(configs(512, model, epochs=1)),
            "of 32": bits(configs(32, model, epochs=1)),
            "of 2": bits(configs(2, model, epochs=1)),
            "alone": bits(configs(1, model, epochs=1)),
        }
        for name, of_others in others.items():
            both = of_64.keys() & of_others.keys()
            equal = sum(of_64[seed] == of_others[seed] for seed in both)
            print(f"{model.name}, 64 runs {name}: {equal} of {len(both)} the same bits", flush=True)


def profile(dataset: Dataset) -> None:
    """Print where the device's time goes."""
    train(configs(512), dataset, pause_at=64)
    with torch.profiler.profile() as profiled:
        train(configs(512), dataset, pause_at=64)
    print(
        profiled.key_averages().table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=60)
    )


PARTS = {"times": times, "cpu": against_the_cpu, "identity": identity, "profile": profile}

if __name__ == "__main__":
    of_card = torch.cuda.get_device_properties(0)
    print(f"{of_card.name}, torch {torch.__version__}", flush=True)
    mnist = datasets.load(STREAM)
    for part in sys.argv[1:] or ("times", "cpu", "identity"):
        began = time.perf_counter()
        PARTS[part](mnist)
        print(f"({part}: {time.perf_counter() - began:.0f} s)", flush=True)
