"""train(configs, dataset): the one visible loop. One run is an array of K = 1."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lockstep import models
from lockstep.array import TrainingArray
from lockstep.config import Refused, RunConfig, TrainerConfig
from lockstep.data import Dataset, Minibatches, split

HeldOut = Literal["test", "val"]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy and accuracy over the whole test or validation set, after `iteration` iterations."""

    iteration: int
    split: HeldOut
    loss: float
    accuracy: float


@dataclass
class History:
    """All that was measured of one run. Entry i of the two vectors is iteration i + 1's minibatch."""

    loss_T: FloatArray = field(default_factory=lambda: np.empty(0))
    accuracy_T: FloatArray = field(default_factory=lambda: np.empty(0))
    evaluations: list[Evaluation] = field(default_factory=list)

    def of(self, split: HeldOut) -> list[Evaluation]:
        """The evaluations on one split, in order."""
        return [evaluation for evaluation in self.evaluations if evaluation.split == split]


@dataclass
class TrainedRun:
    """A run as far as it has trained.

    Attributes:
        module: on the device it trains on.
        seconds: wall time of its array's training steps divided by the array's size, without evaluation.
        epochs: epochs finished.
        diverged_at: the iteration whose loss was not finite, or None.
    """

    config: RunConfig
    module: models.LogisticRegression | models.MultilayerPerceptron
    history: History = field(default_factory=History)
    seconds: float = 0.0
    epochs: int = 0
    diverged_at: int | None = None


def train(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    after_epoch: Callable[[int, TrainedRun], None] = lambda k, run: None,
    threads: int = 1,
    exact: bool = False,
) -> list[TrainedRun]:
    """Train runs that share a stream, device and precision as one array.

    Args:
        configs: K runs with the same data, device and precision.
        dataset: what their data config names.
        after_epoch: told k and run k after each of its epochs, for progress and records; it changes nothing.

    Returns:
        K trained runs, in order. One whose loss stopped being finite left the array after that epoch; its
        history ends with that iteration.

    Raises:
        Refused: if the device or precision can't be had here.
        ValueError: if the runs can't share an array.
    """
    stream, trainer = configs[0].data, configs[0].trainer
    if any(
        (config.data, config.trainer.device, config.trainer.precision)
        != (stream, trainer.device, trainer.precision)
        for config in configs
    ):
        raise ValueError("runs of one array share data, device and precision")
    device, dtype = device_of(trainer), getattr(torch, trainer.precision)
    train_indices, val_indices = split(dataset, stream.val_size)
    minibatches = Minibatches(
        train_indices, stream.batch_size, stream.drop_last, generator(stream.shuffle_seed, "shuffle")
    )
    x_NxF, y_N = dataset.x_train.to(device, dtype), dataset.y_train.to(device)
    held_out: dict[HeldOut, tuple[Tensor, Tensor]] = {
        "test": (dataset.x_test.to(device, dtype), dataset.y_test.to(device))
    }
    if len(val_indices):
        held_out["val"] = (x_NxF[val_indices.to(device)], y_N[val_indices.to(device)])

    runs = [TrainedRun(config, _initial_module(config, dataset).to(device, dtype)) for config in configs]
    array = TrainingArray(
        [run.module for run in runs],
        [config.optim for config in configs],
        [generator(config.seed, "dropout") for config in configs],
        exact,
    )
    training = list(range(len(runs)))  # training[j] is the run that the array holds at j
    with cpu_settings(device, threads):
        while training:
            started = time.perf_counter()
            trained = array.train(x_NxF, y_N, [indices_B.to(device) for indices_B in minibatches.epoch()])
            loss_KxT, accuracy_KxT = (measured_KxT.cpu().numpy() for measured_KxT in trained)
            seconds = (time.perf_counter() - started) / len(training)
            evaluated = {name: array.evaluate(x, y) for name, (x, y) in held_out.items()}
            for j, k in enumerate(training):
                run = runs[k]
                run.seconds += seconds
                _record(
                    run, loss_KxT[j], accuracy_KxT[j], {s: (e[0][j], e[1][j]) for s, e in evaluated.items()}
                )
                after_epoch(k, run)
            for j in reversed(range(len(training))):
                run = runs[training[j]]
                if run.diverged_at is not None or run.epochs == run.config.trainer.epochs:
                    array.remove(j)
                    del training[j]
    return runs


def generator(seed: int, purpose: Literal["init", "dropout", "shuffle"]) -> torch.Generator:
    """A CPU generator of its own for each (seed, purpose), independent of torch's global one."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]))


def device_of(trainer: TrainerConfig) -> torch.device:
    """The device a run trains on; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        Refused: naming the devices that are there.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available() and trainer.precision != "float64":  # MPS has no float64
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if trainer.device == "auto":
        return torch.device(available[0])
    if trainer.device not in available:
        allowed = ", ".join(["auto", *available])
        raise Refused(
            [
                f"trainer.device={trainer.device}: not to be had on this machine"
                f" with trainer.precision={trainer.precision}; allowed here: {allowed}"
            ]
        )
    return torch.device(trainer.device)


@contextmanager
def cpu_settings(device: torch.device, threads: int) -> Iterator[None]:
    """How a run computes on the CPU, whatever the machine's number of cores.

    One intra-op thread: at these sizes two make a step slower. Denormals flushed to zero: the momentum of
    weights whose pixel is always blank decays into them, and an epoch then takes a third longer.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


def _initial_module(
    config: RunConfig, dataset: Dataset
) -> models.LogisticRegression | models.MultilayerPerceptron:
    return models.build(config.model, dataset.n_features, dataset.n_classes, generator(config.seed, "init"))


def _record(
    run: TrainedRun,
    loss_T: FloatArray,
    accuracy_T: FloatArray,
    evaluated: dict[HeldOut, tuple[Tensor, Tensor]],
) -> None:
    """Add an epoch to a run's history; one that diverged ends with its first loss that is not finite."""
    history = run.history
    not_finite = np.flatnonzero(~np.isfinite(loss_T))
    if len(not_finite):
        loss_T, accuracy_T = loss_T[: not_finite[0] + 1], accuracy_T[: not_finite[0] + 1]
    history.loss_T = np.concatenate([history.loss_T, loss_T])
    history.accuracy_T = np.concatenate([history.accuracy_T, accuracy_T])
    iteration = len(history.loss_T)
    # The epoch's last update is first seen by the evaluation.
    if len(not_finite) or not all(loss.isfinite() for loss, _ in evaluated.values()):
        run.diverged_at = iteration
        return
    run.epochs += 1
    history.evaluations += [
        Evaluation(iteration, name, loss.item(), accuracy.item())
        for name, (loss, accuracy) in evaluated.items()
    ]
