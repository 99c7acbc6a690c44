"""The training loop: `train(configs, dataset)`. A single run is an array of one."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lockstep.config.schema import RunConfig
from lockstep.data.augmentation import Augmentation
from lockstep.data.datasets import Dataset
from lockstep.data.minibatches import Minibatches
from lockstep.results.early_stopping import best_epoch, has_ended
from lockstep.results.history import Epoch, FloatArray, HeldOut, History
from lockstep.training import networks, schedule
from lockstep.training.array import TrainingArray
from lockstep.training.canary import canary
from lockstep.training.checkpoint import Checkpoint, State
from lockstep.training.device import cpu_settings, device_of, gpu_settings, widest
from lockstep.training.networks import Network
from lockstep.training.random_streams import generator
from lockstep.training.scores import Scores
from lockstep.training.stretch import aligned


@dataclass
class TrainedRun:
    """A run and its training so far; `network` is on the device that it trains on.

    Attributes:
        state: returns the run's state for a Checkpoint, while the run trains.
        best: with a patience, its state after its best epoch so far.
    """

    config: RunConfig
    network: Network
    history: History = field(default_factory=History)
    state: Callable[[], State] = dict
    best: State = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether the run is done, see lockstep.results.early_stopping."""
        return has_ended(self.history, self.config.trainer)

    @property
    def stopped_at(self) -> int | None:
        """The epochs after which its patience was over, None if that did not end it."""
        done, restored = self.history.epochs, self.history.restored_epoch
        return done if restored is not None and done < self.config.trainer.epochs else None


def train(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    after_epoch: Callable[[int, TrainedRun, Epoch], object] = lambda k, run, epoch: None,
    threads: int = 1,
    exact: bool = False,
    checkpoints: Sequence[Checkpoint | None] | None = None,
    pause_at: int | None = None,
    rungs: Sequence[int] = (),
) -> list[TrainedRun]:
    """Train runs that share minibatches, device and precision as one array.

    Args:
        configs: K runs with the same data, device, precision and threads.
        dataset: the data set that their data config names.
        after_epoch: called with k, run k and its new epoch after each epoch and each part of one; it must
            not change the run. If it returns True, the run leaves the array.
        threads, exact: see TrainingArray.
        checkpoints: each run's, all after the same number of iterations; None for runs that start.
        pause_at: the iterations, counted from a run's start, to stop after; None trains all to their end.
        rungs: iterations after which runs are evaluated, too. A run's bits don't depend on them.

    Returns:
        K runs, in order. A run leaves the array after the epoch in which its loss stops being finite, and its
        history ends with that iteration; or when its patience is over. A run with a patience that has ended
        has the weights of its best epoch.

    Raises:
        Refused: if the device or precision isn't available here.
        ValueError: if the runs can't share an array.
    """
    checkpoints = checkpoints or [None] * len(configs)
    done = _iterations_done(configs, checkpoints)
    data = _Data(configs[0], dataset, done)
    runs = [_begun(*of_run, dataset, data) for of_run in zip(configs, checkpoints, strict=True)]
    array = _array(runs, checkpoints, data, threads, exact)
    training = list(range(len(runs)))  # training[j] is the run that the array holds at j
    with cpu_settings(data.device, threads=configs[0].trainer.threads), gpu_settings(data.device):
        while training and done != pause_at:
            end = data.end_after(done, rungs if pause_at is None else [*rungs, pause_at])
            started = time.perf_counter()
            trained = array.train(data.x_matmul_NxF, data.y_N, data.next(end - done), data.augmentation)
            loss_KxT, accuracy_KxT = (measured_KxT.cpu().double().numpy() for measured_KxT in trained)
            elapsed = time.perf_counter() - started
            seconds_K, leaving = [elapsed * share for share in array.share_K], set[int]()
            evaluated = {name: array.evaluate(x, y) for name, (x, y) in data.held_out.items()}
            for j, k in enumerate(training):
                run = runs[k]
                epoch = _epoch(done, loss_KxT[j], accuracy_KxT[j], evaluated, j, seconds_K[j])
                of_machine = canary(data.device, run.config.trainer.precision)
                epoch = replace(epoch, canary=of_machine, is_part=end % data.minibatches.steps > 0)
                _add(epoch, run, array, j)
                if after_epoch(k, run, epoch) or run.has_ended:
                    leaving.add(j)
            done = end
            array.remove(*leaving)
            training = [k for j, k in enumerate(training) if j not in leaving]
    return runs


def _add(epoch: Epoch, run: TrainedRun, array: TrainingArray, j: int) -> None:
    """Add an epoch, or part of one, to run j of the array."""
    run.history.add(epoch)
    run.state = partial(array.state, j)
    if run.config.trainer.patience is not None and not (epoch.is_part or epoch.diverged):
        _keep_best(run, array, j)


def _keep_best(run: TrainedRun, array: TrainingArray, j: int) -> None:
    """Keep the state of run j of the array after its best epoch so far; restore it if the run has ended."""
    best = best_epoch(run.history, run.config.trainer)
    if best == run.history.epochs:
        run.best = run.state()
    if run.has_ended:
        array.load(j, run.best)
        run.best, run.history.restored_epoch = {}, best


class _Data:
    """A data set on the device that an array trains on, and the minibatches that its runs share.

    Attributes:
        dtype: the dtype of parameters and of everything but matrix products.
        matmul_dtype: the dtype that matrix products compute in.
        used: the features that minibatches use, where GEMMs over these alone are smaller.
        class_weights_C: for `trainer.class_weights=balanced`.
        held_out: instances and classes of the test set, and of the validation set if val_size > 0.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, done: int) -> None:
        stream = config.data
        self.device, self.matmul_dtype = device_of(config.trainer), getattr(torch, config.trainer.precision)
        self.dtype = torch.float32 if self.matmul_dtype == torch.bfloat16 else self.matmul_dtype
        train_N, val_N = dataset.split(stream)
        self.augmentation, self.used = None, None
        if stream.augment.is_on:
            draws = generator(stream.shuffle_seed, "augment")
            blank = dataset.x_blank.to(self.device, self.matmul_dtype)
            self.augmentation = Augmentation(stream.augment, dataset.description, blank, draws)
        elif (used := dataset.used_features) and aligned(len(used.used_U) + 1) < aligned(
            dataset.description.n_features + 1
        ):
            self.used = used.to(self.device)
        order = generator(stream.shuffle_seed, "shuffle")
        self.minibatches = Minibatches(train_N, stream.batch_size, stream.drop_last, order, self.augmentation)
        self.minibatches.skip(done // self.minibatches.steps)
        self._left: list[Tensor] = []  # of the epoch that is being trained
        if n_trained := done % self.minibatches.steps:
            self._left = self.minibatches.epoch()[n_trained:]
        x_NxF, self.y_N = dataset.x_train.to(self.device, self.dtype), dataset.y_train.to(self.device)
        self.class_weights_C = balanced(self.y_N[train_N], dataset.description.n_classes).to(self.dtype)
        self.x_matmul_NxF = x_NxF.to(self.matmul_dtype)
        x_test, y_test = dataset.x_test.to(self.device, self.dtype), dataset.y_test.to(self.device)
        self.held_out: dict[HeldOut, tuple[Tensor, Tensor]] = {"test": (x_test, y_test)}
        if len(val_N):
            val_N = val_N.to(self.device)
            self.held_out["val"] = (x_NxF[val_N], self.y_N[val_N])

    def end_after(self, done: int, rungs: Sequence[int]) -> int:
        """Return the iterations at the next evaluation, at the epoch's end or at a rung before it."""
        steps = self.minibatches.steps
        return min([(done // steps + 1) * steps, *(rung for rung in rungs if rung > done)])

    def next(self, n: int) -> list[Tensor]:
        """Return the next n minibatches, all of one epoch, as indices on the device."""
        left = self._left or self.minibatches.epoch()
        self._left = left[n:]
        sizes = [len(indices_B) for indices_B in left[:n]]
        return list(torch.split(torch.cat(left[:n]).to(self.device), sizes))


def _begun(config: RunConfig, checkpoint: Checkpoint | None, dataset: Dataset, data: _Data) -> TrainedRun:
    network = networks.initial(config, dataset.description).to(data.device, data.dtype)
    if checkpoint is None:
        return TrainedRun(config, network)
    return TrainedRun(config, network, copy.deepcopy(checkpoint.history), best=checkpoint.best)


def _iterations_done(configs: Sequence[RunConfig], checkpoints: Sequence[Checkpoint | None]) -> int:
    """Return the iterations that the runs of an array start after, which must be the same for all."""
    shared = {
        (config.data, config.trainer.device, config.trainer.precision, config.trainer.threads)
        for config in configs
    }
    if len(shared) > 1:
        raise ValueError("runs of one array share data, device, precision and threads")
    done = {checkpoint.history.iterations if checkpoint else 0 for checkpoint in checkpoints}
    if len(done) > 1:
        raise ValueError("runs of one array resume after the same number of iterations")
    return done.pop()


def _array(
    runs: Sequence[TrainedRun],
    checkpoints: Sequence[Checkpoint | None],
    data: _Data,
    threads: int,
    exact: bool,
) -> TrainingArray:
    steps = data.minibatches.steps
    return TrainingArray(
        [run.network for run in runs],
        [run.config.optim for run in runs],
        [generator(run.config.seed, "dropout") for run in runs],
        exact,
        data.matmul_dtype,
        threads if data.device.type == "cpu" else 1,
        [checkpoint.state if checkpoint else None for checkpoint in checkpoints],
        [schedule.build(run.config.optim, run.config.trainer.epochs, steps) for run in runs],
        [run.config.trainer.label_smoothing for run in runs],
        data.used,
        [data.class_weights_C if run.config.trainer.class_weights else None for run in runs],
    )


def balanced(y_N: Tensor, n_classes: int) -> Tensor:
    """Return weights of C classes that make each count alike: N / (classes * instances), float64.

    They are scikit-learn's (`compute_class_weight`). A class without instances has 0.
    """
    n_C = torch.bincount(y_N, minlength=n_classes)
    weights_C = len(y_N) / (n_C.count_nonzero() * n_C.to(widest(y_N.device)))
    return weights_C.where(n_C > 0, 0)


def _epoch(
    done: int,
    loss_T: FloatArray,
    accuracy_T: FloatArray,
    evaluated: Mapping[HeldOut, Scores],
    j: int,
    seconds: float,
) -> Epoch:
    """Return run j's epoch after `done` iterations; it ends with the first loss that isn't finite."""
    at = time.time_ns() // 1_000_000
    not_finite = np.flatnonzero(~np.isfinite(loss_T))
    if len(not_finite):
        end = not_finite[0] + 1
        return Epoch(loss_T[:end].copy(), accuracy_T[:end].copy(), (), seconds, diverged=True, at=at)
    # The evaluation is the first to see the epoch's last update.
    if not all(np.isfinite(scores.loss_K[j]) for scores in evaluated.values()):
        return Epoch(loss_T, accuracy_T, (), seconds, diverged=True, at=at)
    end = done + len(loss_T)
    evaluations = tuple(scores.evaluation(j, split, end) for split, scores in evaluated.items())
    return Epoch(loss_T, accuracy_T, evaluations, seconds, diverged=False, at=at)
