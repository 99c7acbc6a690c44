"""Which jobs train together, in which arrays, on how many workers. Pure: configs in, a plan out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lockstep.config.schema import AdamConfig, LogRegConfig, RunConfig
from lockstep.data.description import DataDescription

ARRAY_BYTES = 16 * 2**20
"""Weights, gradients and optimizer state of an array: a share of the last-level cache, 9 of the workshop's
MLPs. More runs would gain nothing from each other, and finish, and be drawn, only at the very end."""

FLOPS_PER_BYTE = 38
"""What moving a byte of parameters costs, in FLOPs of a GEMM of 2048 cubed; with the next two constants
measured on the workshop's networks (an MLP's step: 525 us, a logistic regression's: 22 us, 214 GFLOP/s)."""

GEMM_SHARE = 0.8
"""Of that GEMM's speed, what GEMMs of a step reach."""

FLOPS_PER_STEP = 1e6
"""What else a step of one run costs."""


@dataclass(frozen=True)
class PlannedArray:
    """Jobs that train as one array.

    Attributes:
        runs: their indices.
        cost: FLOPs of a large GEMM that would take as long on one thread.
        bytes: of weights, gradients and optimizer state.
    """

    runs: tuple[int, ...]
    cost: float
    bytes: int


@dataclass(frozen=True)
class Plan:
    """Arrays, longest first, and how they are spread.

    Attributes:
        n_workers: processes that each take the next array when they are done with one.
        threads: intra-op threads of each.
    """

    arrays: tuple[PlannedArray, ...]
    n_workers: int
    threads: int

    @property
    def cost(self) -> float:
        """Of the busiest worker; each array goes to the worker that is free first."""
        loads = [0.0] * self.n_workers
        for array in self.arrays:
            loads[loads.index(min(loads))] += array.cost
        return max(loads)

    @property
    def bytes(self) -> int:
        """Of the largest arrays that can be in memory at once, without the data."""
        return sum(sorted((array.bytes for array in self.arrays), reverse=True)[: self.n_workers])


def plan(configs: Sequence[RunConfig], descriptions: Sequence[DataDescription], n_jobs: int) -> Plan:
    """Spread jobs over workers so that they finish together, jobs of one stream in few arrays.

    Args:
        configs: one or more jobs.
        descriptions: each run's data.
        n_jobs: workers, or threads where there is less than a job for each; 1 or more.
    """
    n_workers = min(n_jobs, len(configs))
    costs = [cost(config, data) for config, data in zip(configs, descriptions, strict=True)]
    groups: dict[object, list[int]] = {}
    for k, config in enumerate(configs):
        groups.setdefault((config.data, config.trainer.device, config.trainer.precision), []).append(k)
    # Longest processing time first: at most 4/3 of the shortest makespan (Graham 1969).
    of_group = {k: index for index, group in enumerate(groups.values()) for k in group}
    loads, of_worker = [0.0] * n_workers, dict[int, int]()
    for k in sorted(of_group, key=lambda k: (-costs[k], of_group[k], k)):
        of_worker[k] = loads.index(min(loads))
        loads[of_worker[k]] += costs[k]

    arrays = []
    for worker in range(n_workers):
        for group in groups.values():
            mine = [k for k in group if of_worker[k] == worker]
            sizes = [state_bytes(configs[k], descriptions[k]) for k in mine]
            for start, stop in pairwise(_cuts(sizes)):
                arrays.append(
                    PlannedArray(
                        runs=tuple(mine[start:stop]),
                        cost=sum(costs[k] for k in mine[start:stop]),
                        bytes=sum(sizes[start:stop]),
                    )
                )
    arrays.sort(key=lambda array: (-array.cost, array.runs))
    return Plan(tuple(arrays), n_workers, threads=n_jobs // n_workers)


def cost(config: RunConfig, data: DataDescription) -> float:
    """What a run takes on one thread, in FLOPs of a large GEMM that would take as long."""
    layers = _layers(config, data)
    n_weights = sum(n_in * n_out for n_in, n_out in layers)
    n_first = layers[0][0] * layers[0][1]
    batch = config.data.batch_size
    n_left = data.n_train - config.data.val_size
    steps = n_left // batch if config.data.drop_last else math.ceil(n_left / batch)
    # Forward, gradients of the weights, gradients of all inputs but the data.
    gemms = 2 * batch * (3 * n_weights - n_first) / GEMM_SHARE
    moved = FLOPS_PER_BYTE * _item_bytes(config) * n_weights
    evaluation = 2 * (data.n_test + config.data.val_size) * n_weights / GEMM_SHARE
    return config.trainer.epochs * (steps * (gemms + moved + FLOPS_PER_STEP) + evaluation)


def state_bytes(config: RunConfig, data: DataDescription) -> int:
    """Bytes of a run's weights, gradients and optimizer state."""
    vectors = 5 if isinstance(config.optim, AdamConfig) else 3 if config.optim.nesterov else 2
    n_parameters = sum((n_in + 1) * n_out for n_in, n_out in _layers(config, data))
    return vectors * _item_bytes(config) * n_parameters


def _layers(config: RunConfig, data: DataDescription) -> list[tuple[int, int]]:
    hidden = () if isinstance(config.model, LogRegConfig) else config.model.hidden_dims
    return list(pairwise([data.n_features, *hidden, data.n_classes]))


def _item_bytes(config: RunConfig) -> int:
    return 8 if config.trainer.precision == "float64" else 4


def _cuts(sizes: Sequence[int]) -> list[int]:
    """Where to cut runs of these bytes into the fewest arrays of about equal number that hold ARRAY_BYTES."""
    if not sizes:
        return [0]
    n_arrays = min(len(sizes), math.ceil(sum(sizes) / ARRAY_BYTES))
    return [round(index * len(sizes) / n_arrays) for index in range(n_arrays + 1)]
