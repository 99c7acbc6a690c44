"""Plans: which runs train together as arrays, on how many workers. Pure: configs in, a plan out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lockstep.config.model_config import MLPConfig
from lockstep.config.optim_config import AdamConfig
from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription, iterations_per_epoch

ARRAY_BYTES = 16 * 2**20
"""Weights, gradients and optimizer state of an array: a share of the last-level cache, 9 of the workshop's
MLPs. More runs per array aren't faster, and would all finish, and get their pictures, at the very end."""

DEVICE_ARRAY_BYTES = 2**30
"""The same on a GPU: 590 of the workshop's MLPs with SGD, which train in a few GB. It doesn't depend on the
free memory, as there bits depend on which runs share a stack."""

FLOPS_PER_BYTE = 38
"""Cost of moving a byte of parameters, in FLOPs of a GEMM of 2048 cubed. This and the next two constants were
measured on the workshop's networks (an MLP's step: 525 us, a logistic regression's: 22 us, 214 GFLOP/s)."""

GEMM_SHARE = 0.8
"""The share of that GEMM's speed that a step's GEMMs reach."""

FLOPS_PER_STEP = 1e6
"""The remaining cost of a run's step, in the same FLOPs."""

FLOPS_PER_AUGMENTED = 160
"""The cost of a feature of an augmented minibatch, in the same FLOPs, as measured on MNIST (images of 8 x 8:
370; of 3 x 32 x 32: 110). It is 7 % of the step of a workshop's MLP alone; the runs of an array share it."""


@dataclass(frozen=True)
class Need:
    """What a run of a module needs, as measured.

    Attributes:
        n_parameters: that are trained.
        step, row: the costs of a training step and of evaluating an instance, see PlannedArray.cost.
    """

    n_parameters: int
    step: float
    row: float


@dataclass(frozen=True)
class PlannedArray:
    """Runs that train as one array.

    Attributes:
        runs: their indices.
        cost: training time on one thread, in FLOPs of a large GEMM that would take as long.
        bytes: weights, gradients and optimizer state.
    """

    runs: tuple[int, ...]
    cost: float
    bytes: int


@dataclass(frozen=True)
class Plan:
    """Arrays, longest first, and the workers that train them.

    Attributes:
        n_workers: processes; each takes the next array when it has finished one.
        threads: intra-op threads of each worker.
    """

    arrays: tuple[PlannedArray, ...]
    n_workers: int
    threads: int

    @property
    def cost(self) -> float:
        """The cost of the busiest worker, if each array goes to the first free worker."""
        loads = [0.0] * self.n_workers
        for array in self.arrays:
            loads[loads.index(min(loads))] += array.cost
        return max(loads)

    @property
    def bytes(self) -> int:
        """The bytes of the `n_workers` largest arrays, which may train at once, without the data."""
        return sum(sorted((array.bytes for array in self.arrays), reverse=True)[: self.n_workers])


def plan(
    configs: Sequence[RunConfig],
    descriptions: Sequence[DataDescription],
    n_jobs: int,
    needs: Sequence[Need | None] | None = None,
    array_bytes: int = ARRAY_BYTES,
) -> Plan:
    """Spread runs over workers so that the workers finish together; runs of equal data share few arrays.

    Args:
        configs: one or more runs.
        descriptions: each run's data.
        n_jobs: the most workers, 1 or more; with fewer runs than that, runs get several threads. A worker
            whose runs ask for several threads counts as so many.
        needs: of each run whose network is a module; None for the others.
        array_bytes: the most of an array's weights, gradients and optimizer state.
    """
    n_workers = min(max(1, n_jobs // max(config.trainer.threads for config in configs)), len(configs))
    each = list(zip(configs, descriptions, needs or [None] * len(configs), strict=True))
    costs = [cost(*of_run) for of_run in each]
    groups: dict[object, list[int]] = {}
    for k, config in enumerate(configs):
        trainer = config.trainer
        alike = (config.data, trainer.device, trainer.precision, trainer.threads)
        groups.setdefault(alike, []).append(k)
    # Longest processing time first: at most 4/3 of the shortest makespan (Graham, 1969).
    of_group = {k: index for index, group in enumerate(groups.values()) for k in group}
    loads, of_worker = [0.0] * n_workers, dict[int, int]()
    for k in sorted(of_group, key=lambda k: (-costs[k], of_group[k], k)):
        of_worker[k] = loads.index(min(loads))
        loads[of_worker[k]] += costs[k]

    arrays = []
    for worker in range(n_workers):
        for group in groups.values():
            mine = [k for k in group if of_worker[k] == worker]
            sizes = [state_bytes(*each[k]) for k in mine]
            for start, stop in pairwise(_cuts(sizes, array_bytes)):
                runs = tuple(mine[start:stop])
                shared = _augmenting([configs[k] for k in runs], descriptions[runs[0]])
                total = sum(costs[k] for k in runs) + shared
                arrays.append(PlannedArray(runs, total, bytes=sum(sizes[start:stop])))
    arrays.sort(key=lambda array: (-array.cost, array.runs))
    return Plan(tuple(arrays), n_workers, threads=n_jobs // n_workers)


def cost(config: RunConfig, data: DataDescription, need: Need | None = None) -> float:
    """Return a run's training time on one thread, in FLOPs of a large GEMM that would take as long."""
    batch, steps = config.data.batch_size, iterations_per_epoch(config.data, data)
    if need is not None:
        evaluated = data.n_test + config.data.val_size
        return config.trainer.epochs * (steps * need.step + evaluated * need.row)
    layers = _layers(config, data)
    n_weights = sum(n_in * n_out for n_in, n_out in layers)
    n_first = layers[0][0] * layers[0][1]
    # Forward, gradients of the weights, gradients of all inputs but the data.
    gemms = 2 * batch * (3 * n_weights - n_first) / GEMM_SHARE
    moved = FLOPS_PER_BYTE * _item_bytes(config) * n_weights
    evaluation = 2 * (data.n_test + config.data.val_size) * n_weights / GEMM_SHARE
    return config.trainer.epochs * (steps * (gemms + moved + FLOPS_PER_STEP) + evaluation)


def _augmenting(configs: Sequence[RunConfig], data: DataDescription) -> float:
    """Return the cost of an array's augmented minibatches, see `cost`."""
    stream = configs[0].data
    if not stream.augment.is_on:
        return 0.0
    epochs = max(config.trainer.epochs for config in configs)
    n_features = stream.batch_size * data.n_features
    return epochs * iterations_per_epoch(configs[0].data, data) * n_features * FLOPS_PER_AUGMENTED


def state_bytes(config: RunConfig, data: DataDescription, need: Need | None = None) -> int:
    """Return the bytes of a run's weights, gradients and optimizer state."""
    vectors = 5 if isinstance(config.optim, AdamConfig) else 3 if config.optim.has_buffer else 2
    of_layers = sum((n_in + 1) * n_out for n_in, n_out in _layers(config, data))
    n_parameters = of_layers if need is None else need.n_parameters
    return vectors * _item_bytes(config) * n_parameters


def _layers(config: RunConfig, data: DataDescription) -> list[tuple[int, int]]:
    hidden = config.model.hidden_dims if isinstance(config.model, MLPConfig) else ()
    return list(pairwise([data.n_features, *hidden, data.n_classes]))


def _item_bytes(config: RunConfig) -> int:
    return 8 if config.trainer.precision == "float64" else 4


def _cuts(sizes: Sequence[int], array_bytes: int) -> list[int]:
    """Return where to cut runs of these bytes into the fewest arrays of `array_bytes`, about equally long."""
    if not sizes:
        return [0]
    n_arrays = min(len(sizes), math.ceil(sum(sizes) / array_bytes))
    return [round(index * len(sizes) / n_arrays) for index in range(n_arrays + 1)]
