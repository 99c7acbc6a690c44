"""A test of whether a run's bits stay the same on this machine when other runs train beside it.

A run's kernels get the same shapes, scalars and alignment in any stack. Whether a batched kernel, or one
spread over threads, then gives the same bits depends on the machine's libraries.
"""

import os
from collections.abc import Sequence

import torch

from lockstep.config.model_config import LogRegConfig, MLPConfig
from lockstep.config.optim_config import SGDConfig
from lockstep.training import networks
from lockstep.training.array import TrainingArray
from lockstep.training.device import cpu_settings
from lockstep.training.random_streams import generator

N_STEPS, N_FEATURES, N_CLASSES = 60, 784, 10
ROWS = (64, 57)
"""Sizes of the minibatches: one that fills vectors and one that doesn't, N_STEPS / 2 each."""
ALIKE = 5
"""Runs of each network: they may fill a stack only in part, and a run's position in it varies."""

NETWORKS: dict[str, LogRegConfig | MLPConfig] = {
    "logistic regression": LogRegConfig(name="logreg"),
    "MLP 784-32-16-10": MLPConfig(name="mlp", hidden_dims=(32, 16), dropout=0.25, activation="relu"),
    "MLP 784-256-100-10": MLPConfig(name="mlp", hidden_dims=(256, 100), dropout=0.25, activation="relu"),
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def keeps_bits(network: LogRegConfig | MLPConfig, precision: str, exact: bool) -> bool:
    """Tell whether runs get the same losses and weights alone as together, on 1 thread as on all cores."""
    dtype = PRECISIONS[precision]
    alone = [_trained(network, [seed], dtype, threads=1, exact=exact)[0] for seed in range(ALIKE)]
    return all(
        _trained(network, seeds, dtype, threads, exact) == [alone[seed] for seed in seeds]
        for threads in (1, max(2, os.cpu_count() or 1))
        for seeds in (range(ALIKE), range(ALIKE - 1, 0, -1))
    )


def _trained(
    network: LogRegConfig | MLPConfig, seeds: Sequence[int], dtype: torch.dtype, threads: int, exact: bool
) -> list[bytes]:
    """Return the bytes of each run's losses and weights."""
    drawn = torch.Generator().manual_seed(0)
    x_NxF = torch.rand(1000, N_FEATURES, generator=drawn)
    y_N = torch.randint(N_CLASSES, (1000,), generator=drawn)
    minibatches = [
        torch.randint(1000, (n_rows,), generator=drawn) for n_rows in ROWS for _ in range(N_STEPS // 2)
    ]
    stored = torch.promote_types(dtype, torch.float32)
    runs = [
        networks.build(network, N_FEATURES, N_CLASSES, generator(seed, "init")).to(stored) for seed in seeds
    ]
    array = TrainingArray(
        runs,
        [
            SGDConfig(name="sgd", lr=0.05 + seed / 100, momentum=0.9, nesterov=False, weight_decay=0.0)
            for seed in seeds
        ],
        [generator(seed, "dropout") for seed in seeds],
        exact,
        dtype,
        threads,
    )
    with cpu_settings(torch.device("cpu")):
        loss_KxT, _ = array.train(x_NxF.to(dtype), y_N, minibatches)
    return [
        b"".join(t.detach().contiguous().numpy().tobytes() for t in (loss_T, *run.parameters()))
        for loss_T, run in zip(loss_KxT, runs, strict=True)
    ]
