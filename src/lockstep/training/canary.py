"""The numerical canary: a hash of a short training, equal on machines that give runs the same bits.

Names of processors and versions of libraries don't tell that: environment variables and a GPU's driver change
which kernels run, and two processors may run the same.
"""

import functools
import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lockstep.config.model_config import LogRegConfig, MLPConfig
from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.training import networks
from lockstep.training.array import TrainingArray
from lockstep.training.device import cpu_settings
from lockstep.training.random_streams import generator

N_INSTANCES, N_FEATURES, N_CLASSES = 200, 100, 10

ROWS = (64, 57)
"""Sizes of the minibatches. Kernels differ most in what they do with the rest that fills no vector."""

NETWORKS: list[LogRegConfig | MLPConfig] = [
    LogRegConfig(name="logreg"),
    MLPConfig(name="mlp", hidden_dims=(33, 16), dropout=0.25, activation="relu"),
    MLPConfig(name="mlp", hidden_dims=(300, 9), dropout=0.25, activation="gelu"),
    MLPConfig(name="mlp", hidden_dims=(64, 3), dropout=0.25, activation="tanh"),
    MLPConfig(name="mlp", hidden_dims=(40,), dropout=0.25, activation="sigmoid"),
]
SGD = SGDConfig(name="sgd", lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.01)
ADAM = AdamConfig(name="adam", lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)


@functools.cache
def canary(device: torch.device, precision: str) -> str:
    """Return 16 hex digits: of training on a device and, for feature spaces, of NumPy's products."""
    x_NxF = _values(N_INSTANCES, N_FEATURES)
    digest = hashlib.sha256()
    with cpu_settings(torch.device("cpu")), threadpool_limits(1):
        digest.update(_product(x_NxF.numpy()).tobytes())
        for tensor in _trained(x_NxF, device, getattr(torch, precision)):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _product(x_NxF: NDArray[np.float64]) -> NDArray[np.float64]:
    return x_NxF.T @ x_NxF


def _trained(x_NxF: torch.Tensor, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return losses and accuracies of training and evaluation, and the weights."""
    stored = torch.promote_types(dtype, torch.float32)
    x_NxF, y_N = x_NxF.to(stored).to(device), (torch.arange(N_INSTANCES) % N_CLASSES).to(device)
    runs = [networks.build(network, N_FEATURES, N_CLASSES, generator(0, "init")) for network in NETWORKS]
    array = TrainingArray(
        [run.to(device, stored) for run in runs],
        [SGD, ADAM, SGD, ADAM, SGD],
        [generator(0, "dropout") for _ in runs],
        matmul_dtype=dtype,
    )
    minibatches = [torch.arange(n_rows, device=device) for n_rows in ROWS for _ in range(2)]
    trained, scores = array.train(x_NxF.to(dtype), y_N, minibatches), array.evaluate(x_NxF, y_N)
    evaluated = map(torch.from_numpy, (scores.loss_K, scores.accuracy_K))
    return [*trained, *evaluated, *(weight for run in runs for weight in run.parameters())]


def _values(*shape: int) -> torch.Tensor:
    """Return fixed float64 values from 0 to 1 with all digits, so that their products are rounded."""
    return (torch.arange(int(np.prod(shape))) * 40503 % 65521).double().div(65521).view(shape)
