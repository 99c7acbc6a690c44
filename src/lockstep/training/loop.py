"""train(configs, dataset): the one visible loop. One run is an array of K = 1."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lockstep.config.schema import RunConfig
from lockstep.data.datasets import Dataset, Minibatches, split
from lockstep.results.history import Epoch, Evaluation, FloatArray, HeldOut, History
from lockstep.training import networks, schedule
from lockstep.training.array import TrainingArray
from lockstep.training.device import cpu_settings, device_of
from lockstep.training.random_streams import generator
from lockstep.training.stack import Network


@dataclass(frozen=True)
class Checkpoint:
    """A run after some epochs: its history until then, and its state in the array (see TrainingArray)."""

    history: History
    state: Mapping[str, Tensor]


@dataclass
class TrainedRun:
    """A run as far as it has trained; `network` is on the device it trains on.

    Attributes:
        state: makes what a Checkpoint needs, while the run trains.
    """

    config: RunConfig
    network: Network
    history: History = field(default_factory=History)
    state: Callable[[], Mapping[str, Tensor]] = dict

    @property
    def ended(self) -> bool:
        """Whether it has left its array: all epochs done, or diverged."""
        return self.history.diverged_at is not None or self.history.epochs == self.config.trainer.epochs


def train(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    after_epoch: Callable[[int, TrainedRun, Epoch], None] = lambda k, run, epoch: None,
    threads: int = 1,
    exact: bool = False,
    checkpoints: Sequence[Checkpoint | None] | None = None,
    pause_at: int | None = None,
) -> list[TrainedRun]:
    """Train runs that share a stream, device and precision as one array.

    Args:
        configs: K runs with the same data, device and precision.
        dataset: what their data config names.
        after_epoch: told k, run k and what was added, after each of its epochs; it changes nothing.
        threads, exact: see TrainingArray.
        checkpoints: what runs go on from, all after the same number of epochs; None for runs that start.
        pause_at: stop after so many epochs, those of the checkpoints counted; None trains all to their end.

    Returns:
        K runs, in order, trained as far as was asked. One whose loss stopped being finite left the array
        after that epoch; its history ends with that iteration.

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
    checkpoints = checkpoints or [None] * len(configs)
    done, *others = {checkpoint.history.epochs if checkpoint else 0 for checkpoint in checkpoints}
    if others:
        raise ValueError("runs of one array go on after the same number of epochs")
    device, matmul_dtype = device_of(trainer), getattr(torch, trainer.precision)
    dtype = torch.float32 if matmul_dtype == torch.bfloat16 else matmul_dtype
    train_indices, val_indices = split(dataset, stream.val_size)
    minibatches = Minibatches(
        train_indices, stream.batch_size, stream.drop_last, generator(stream.shuffle_seed, "shuffle")
    )
    minibatches.skip(done)
    x_NxF, y_N = dataset.x_train.to(device, dtype), dataset.y_train.to(device)
    held_out: dict[HeldOut, tuple[Tensor, Tensor]] = {
        "test": (dataset.x_test.to(device, dtype), dataset.y_test.to(device))
    }
    if len(val_indices):
        held_out["val"] = (x_NxF[val_indices.to(device)], y_N[val_indices.to(device)])

    runs = [TrainedRun(config, _initial_network(config, dataset).to(device, dtype)) for config in configs]
    array = TrainingArray(
        [run.network for run in runs],
        [config.optim for config in configs],
        [generator(config.seed, "dropout") for config in configs],
        exact,
        matmul_dtype,
        threads if device.type == "cpu" else 1,
        [checkpoint.state if checkpoint else None for checkpoint in checkpoints],
        [schedule.build(config.optim, config.trainer.epochs, minibatches.steps) for config in configs],
    )
    for run, checkpoint in zip(runs, checkpoints, strict=True):
        if checkpoint is not None:
            run.history = copy.deepcopy(checkpoint.history)
    x_matmul_NxF = x_NxF.to(matmul_dtype)
    training = list(range(len(runs)))  # training[j] is the run that the array holds at j
    with cpu_settings(device):
        while training and done != pause_at:
            started = time.perf_counter()
            trained = array.train(
                x_matmul_NxF, y_N, [indices_B.to(device) for indices_B in minibatches.epoch()]
            )
            loss_KxT, accuracy_KxT = (measured_KxT.cpu().double().numpy() for measured_KxT in trained)
            seconds = (time.perf_counter() - started) / len(training)
            evaluated = {name: array.evaluate(x, y) for name, (x, y) in held_out.items()}
            for j, k in enumerate(training):
                iterations = len(runs[k].history.loss_T)
                of_run = {name: (loss_K[j], acc_K[j]) for name, (loss_K, acc_K) in evaluated.items()}
                epoch = _epoch(iterations, loss_KxT[j], accuracy_KxT[j], of_run, seconds)
                runs[k].history.add(epoch)
                runs[k].state = partial(array.state, j)
                after_epoch(k, runs[k], epoch)
            done += 1
            for j in reversed(range(len(training))):
                if runs[training[j]].ended:
                    array.remove(j)
                    del training[j]
    return runs


def _initial_network(config: RunConfig, dataset: Dataset) -> Network:
    return networks.build(config.model, dataset.n_features, dataset.n_classes, generator(config.seed, "init"))


def _epoch(
    done: int,
    loss_T: FloatArray,
    accuracy_T: FloatArray,
    evaluated: dict[HeldOut, tuple[Tensor, Tensor]],
    seconds: float,
) -> Epoch:
    """An epoch after `done` iterations; one that diverged ends with its first loss that is not finite."""
    at = time.time_ns() // 1_000_000
    not_finite = np.flatnonzero(~np.isfinite(loss_T))
    if len(not_finite):
        end = not_finite[0] + 1
        return Epoch(loss_T[:end].copy(), accuracy_T[:end].copy(), (), seconds, diverged=True, at=at)
    # The epoch's last update is first seen by the evaluation.
    if not all(loss.isfinite() for loss, _ in evaluated.values()):
        return Epoch(loss_T, accuracy_T, (), seconds, diverged=True, at=at)
    evaluations = [
        Evaluation(done + len(loss_T), name, loss.item(), accuracy.item())
        for name, (loss, accuracy) in evaluated.items()
    ]
    return Epoch(loss_T, accuracy_T, tuple(evaluations), seconds, diverged=False, at=at)
