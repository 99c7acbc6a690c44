"""The training array: K runs stepped together on the same minibatches, each with the bits of training alone.

The array gathers a stretch of minibatches once. Each stack of runs in turn takes all its steps on them, so
that the weights of a large network stay in a core's cache.

Shapes: K runs, R runs of a stack, T steps, B minibatch, N instances, F features.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, repeat, starmap

import torch
from torch import Tensor, nn

from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.data.augmentation import Augmentation
from lockstep.data.used_features import UsedFeatures
from lockstep.training.device import Moment, moment, seconds_between, widest
from lockstep.training.device_stack import DeviceStack
from lockstep.training.joined import keeps_bits
from lockstep.training.layers import OnThreads
from lockstep.training.module_stack import ModuleRun, ModuleStack
from lockstep.training.networks import LogisticRegression, ModuleNetwork, Network, joint_logits
from lockstep.training.run import Run
from lockstep.training.schedule import Constant, Schedule
from lockstep.training.scores import Scores, counted
from lockstep.training.stack import Stack
from lockstep.training.stretch import Stretch, steps_at_once

EVALUATION_ROWS, MODULE_ROWS = 1024, 128
"""Rows per forward pass in evaluation: gives threads equal shares and bounds the memory of wide layers. A
convolution's activations are larger: with 1,024 rows it takes up to 2.2 times as long."""


def rows_at_once(network: Network) -> int:
    """Return how many rows a network evaluates at once, which is always the same, as it changes bits."""
    return MODULE_ROWS if isinstance(network, ModuleNetwork) else EVALUATION_ROWS


class TrainingArray:
    """K runs stepped together. The networks' parameters are current after each call of `train`.

    Args:
        networks: K networks on one device, of one dtype. Widths, depth and family may differ.
        optim_configs: K optimizers' hyperparameters.
        dropout_generators: K generators on the CPU, one for each run's dropout masks.
        exact: stack no runs, so that every kernel is called as it is for a run alone.
        matmul_dtype: the dtype that GEMMs compute in, by default the networks' dtype.
        threads: intra-op threads that may share a large network's steps, where that is faster. Everything
            else runs on `torch.get_num_threads()`, which should be 1 unless a run of a module asks for more.
        states: the state that each run resumes from, see `state`; None for a run that starts.
        schedules: each run's learning rate; by default its config's, constant.
        label_smoothings, class_weights: each run's, of the loss that it minimises; by default 0 and None.

    Attributes:
        share_K: each run's share of the last training's time: its stack's, divided by the runs of the stack.
        used: the features that the minibatches use, on the runs' device; None if all.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        optim_configs: Sequence[SGDConfig | AdamConfig],
        dropout_generators: Sequence[torch.Generator],
        exact: bool = False,
        matmul_dtype: torch.dtype | None = None,
        threads: int = 1,
        states: Sequence[Mapping[str, Tensor] | None] | None = None,
        schedules: Sequence[Schedule] | None = None,
        label_smoothings: Sequence[float] | None = None,
        used: UsedFeatures | None = None,
        class_weights: Sequence[Tensor | None] | None = None,
    ) -> None:
        self._used = used
        self._exact, self._threads = exact, threads
        self._matmul_dtype = matmul_dtype or next(networks[0].parameters()).dtype
        schedules = schedules or [Constant(config.lr) for config in optim_configs]
        smoothings = label_smoothings or [0.0] * len(networks)
        weights = class_weights or [None] * len(networks)
        losses = zip(smoothings, weights, strict=True)
        of_runs = zip(networks, optim_configs, dropout_generators, schedules, losses, strict=True)
        self._runs = [_run(*of_run, used) for of_run in of_runs]
        for run, state in zip(self._runs, states or [None] * len(self._runs), strict=True):
            if state is not None:
                run.load(state)
        self._stacks = self._stacked(self._runs)
        self._stretches: dict[int, Stretch] = {}
        self.share_K: list[float] = []

    def _stacked(self, runs: Sequence[Run | ModuleRun]) -> list[Stack | ModuleStack]:
        alike: dict[object, list[Run | ModuleRun]] = {}
        for run in runs:
            alike.setdefault(run.kernels, []).append(run)
        stacks = list[Stack | ModuleStack]()
        for group in alike.values():
            size = 1 if self._exact else group[0].per_stack
            stacks += [self._stack(group[start : start + size]) for start in range(0, len(group), size)]
        return stacks

    def _stack(self, runs: Sequence[Run | ModuleRun]) -> Stack | ModuleStack:
        """Return the stack of runs that can be stacked."""
        chains = [run for run in runs if isinstance(run, Run)]
        if chains:
            of_device = DeviceStack if chains[0].params_P.is_cuda else Stack
            return of_device(chains, self._matmul_dtype)
        [module] = [run for run in runs if isinstance(run, ModuleRun)]
        return ModuleStack(module)

    @torch.no_grad()
    def train(
        self,
        x_NxF: Tensor,
        y_N: Tensor,
        minibatches: Sequence[Tensor],
        augmentation: Augmentation | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Step every run on each minibatch in turn: forward, backward, update.

        Args:
            x_NxF, y_N: the data set, on the runs' device, x_NxF in matmul_dtype; the same in every call.
            minibatches: T index tensors into it, int64, on that device.
            augmentation: if they are indices of its variants; the same in every call.

        Returns:
            loss_KxT, accuracy_KxT: mean cross-entropy and accuracy of each minibatch before its update, with
                dropout and label smoothing, in `widest`.
        """
        n_classes, device = self._runs[0].n_classes, x_NxF.device
        measured: list[list[tuple[Tensor, Tensor]]] = [[] for _ in self._stacks]
        spans: list[list[tuple[Moment, Moment]]] = [[] for _ in self._stacks]
        sharing = _Sharing(self._stacks, self._threads)
        for indices_TxB in _equal_stretches(minibatches):
            n_rows = indices_TxB.shape[1]
            stretch = self._stretches.get(n_rows)
            if stretch is None:
                stretch = self._stretches[n_rows] = Stretch(
                    n_rows, n_classes, x_NxF, augmentation, self._used
                )
            with sharing.next_stretch():
                stretch.gather(x_NxF, y_N, indices_TxB)
            for stack, of_stack, spans_of_stack in zip(self._stacks, measured, spans, strict=True):
                started = moment(device)
                of_stack.append(stack.train(stretch))
                spans_of_stack.append((started, moment(device)))
        for run in self._runs:
            if isinstance(run, Run):
                run.publish()
        of_run = dict[Run | ModuleRun, tuple[Tensor, Tensor, float]]()
        for stack, of_stack, spans_of_stack in zip(self._stacks, measured, spans, strict=True):
            loss_RxT, accuracy_RxT = (torch.cat(parts, dim=1) for parts in zip(*of_stack, strict=True))
            runs: Sequence[Run | ModuleRun] = stack.runs
            each = sum(starmap(seconds_between, spans_of_stack)) / len(runs)
            of_run |= zip(runs, zip(loss_RxT, accuracy_RxT, repeat(each)), strict=True)
        losses, accuracies, seconds = zip(*(of_run[run] for run in self._runs), strict=True)
        total = sum(seconds)
        self.share_K = [each / total for each in seconds]
        return torch.stack(losses), torch.stack(accuracies)

    @torch.no_grad()
    def evaluate(self, x_NxF: Tensor, y_N: Tensor) -> Scores:
        """Return every run's scores over N instances, in evaluation mode."""
        measured: dict[Run | ModuleRun, tuple[Tensor, Tensor]] = {}
        dtype, n_classes = widest(x_NxF.device), self._runs[0].n_classes
        for stack in self._stacks:
            runs: Sequence[Run | ModuleRun] = stack.runs
            if isinstance(stack, DeviceStack):
                measured |= zip(runs, zip(*stack.evaluate(x_NxF, y_N), strict=True), strict=True)
                continue
            losses, predictions = [], []
            for logits_NxC in self._logits([run.network for run in runs], x_NxF):
                losses.append(nn.functional.cross_entropy(logits_NxC, y_N).to(dtype))
                predictions.append(logits_NxC.max(dim=1).indices)  # argmax takes up to 6 times as long
            counts_RxCx2 = counted(torch.stack(predictions), y_N, n_classes)
            measured |= zip(runs, zip(losses, counts_RxCx2, strict=True), strict=True)
        losses_K, counts_K = zip(*(measured[run] for run in self._runs), strict=True)
        return Scores.of(torch.stack(losses_K), torch.stack(counts_K), y_N)

    def _logits(self, networks: Sequence[Network], x_NxF: Tensor) -> Iterator[Tensor]:
        """Yield the logits of each network of a stack, N x C."""
        parts = torch.split(x_NxF, rows_at_once(networks[0]))
        linear = [network for network in networks if isinstance(network, LogisticRegression)]
        if len(linear) > 1 and all(_can_join(linear, part) for part in parts):
            yield from torch.cat(self._of_parts(partial(joint_logits, linear), parts), dim=1)
            return
        for network in networks:
            if isinstance(network, ModuleNetwork):  # which may not be called by two threads at once
                yield torch.cat([network.eval()(part) for part in parts])
            else:
                yield torch.cat(self._of_parts(network.eval(), parts))

    def _of_parts(self, forward: Callable[[Tensor], Tensor], parts: Sequence[Tensor]) -> list[Tensor]:
        if self._threads == 1:
            return [forward(part) for part in parts]

        # Our own threads take whole parts: torch's threads would split a GEMM's sums (see OnThreads).
        def logits_of(x_NxF: Tensor) -> Tensor:
            with torch.no_grad():  # a setting of each thread, like flushing denormals
                return forward(x_NxF)

        with ThreadPoolExecutor(
            self._threads, initializer=torch.set_flush_denormal, initargs=(True,)
        ) as pool:
            return list(pool.map(logits_of, parts))

    def state(self, k: int) -> dict[str, Tensor]:
        """Return the state from which run k resumes with the same bits: CPU tensors in the array's layout."""
        return self._runs[k].state()

    def load(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Set run k to a state that `state` returned, before it is removed.

        The stack has copies of weights that its next step would use, so the run must not be trained on.
        """
        self._runs[k].load(state)

    def remove(self, *indices: int) -> None:
        """Remove runs; those after them move up. Their networks keep their parameters."""
        removed = {self._runs[k] for k in indices}
        self._runs = [run for run in self._runs if run not in removed]
        for position, stack in reversed(list(enumerate(self._stacks))):
            runs: Sequence[Run | ModuleRun] = stack.runs
            others = [run for run in runs if run not in removed]
            if len(others) < len(runs):
                self._stacks[position : position + 1] = [self._stack(others)] if others else []


def _run(
    network: Network,
    config: SGDConfig | AdamConfig,
    dropout_generator: torch.Generator,
    rate: Schedule,
    loss: tuple[float, Tensor | None],
    used: UsedFeatures | None,
) -> Run | ModuleRun:
    if isinstance(network, ModuleNetwork):
        return ModuleRun(network, config, dropout_generator, rate, *loss)
    return Run(network, config, dropout_generator, rate, *loss, used)


def _can_join(networks: Sequence[LogisticRegression], x_NxF: Tensor) -> bool:
    n_out, (n_rows, n_in) = networks[0].W.shape[1], x_NxF.shape
    is_on_cpu = x_NxF.device.type == "cpu"
    return is_on_cpu and keeps_bits(len(networks), n_out, n_in, n_rows, x_NxF.dtype)


class _Sharing:
    """A measurement, in the first stretches of an epoch, of whether threads make it faster.

    The threads wait for each other at every kernel. They are faster on idle cores, but take several times as
    long as one thread where another process needs a core. The numbers are the same either way.
    """

    def __init__(self, stacks: Sequence[Stack | ModuleStack], threads: int) -> None:
        self._stacks, self._threads = stacks, threads
        self._on_threads = OnThreads(1)
        self._started: list[float] = []

    def next_stretch(self) -> OnThreads:
        """Return the threads for the next stretch; call it before the stretch is gathered."""
        if self._threads == 1 or len(self._started) == 4:
            return self._on_threads
        self._started.append(time.perf_counter())
        shared = len(self._started) < 3  # the first stretch isn't compared: it allocates, so takes longer
        if len(self._started) == 4:
            _, second, third, fourth = self._started
            shared = third - second < fourth - third
        self._on_threads = OnThreads(self._threads if shared else 1)
        for stack in self._stacks:
            stack.share(self._on_threads.n)
        return self._on_threads


def _equal_stretches(minibatches: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield stretches: up to `steps_at_once` consecutive minibatches of one size, stacked, T x B."""
    for n_rows, equal in groupby(minibatches, key=len):
        alike, n_steps = list(equal), steps_at_once(n_rows)
        for start in range(0, len(alike), n_steps):
            yield torch.stack(alike[start : start + n_steps])
