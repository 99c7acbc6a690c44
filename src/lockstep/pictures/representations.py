"""A run's feature spaces, projected to their first two principal components and measured.

Suffixes name the axes of an array: N instances, F features, H units of a hidden layer.
"""

import functools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from lockstep.data.datasets import Dataset
from lockstep.pictures.layer_inputs import layer_inputs
from lockstep.training.device import cpu_settings
from lockstep.training.networks import LogisticRegression, MultilayerPerceptron, Network

FloatArray = NDArray[np.floating[Any]]

# Up to 1,000 features, solve for the covariance's eigenvectors, as scikit-learn does by default. Beyond, that
# matrix costs more than ARPACK's passes over the data (60,000 x 3,136 pixels: 5.9 s against 2.6 s).
WIDEST_COVARIANCE = 1000

OF_MODULES = 10_000
"""Training instances on the planes of a module's representations."""

FITTED, MEASURED, NEIGHBOURS = 2000, 1000, 5
"""Training and test instances that spaces are measured on: 0.5 s per run. More instances change little."""


@dataclass(frozen=True)
class Plane:
    """A feature space on its first two principal components, and each component's share of variance."""

    name: str
    title: str
    points_Nx2: NDArray[np.float32]
    explained_variance_ratio: tuple[float, float]


@contextmanager
def fixed_settings() -> Iterator[None]:
    """Compute on one thread, and with denormals, whatever the process and its settings.

    BLAS rounds differently on each number of threads, and workers have one each.
    """
    with cpu_settings(torch.device("cpu"), flush_denormal=False), _libraries().limit(limits=1):
        yield


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return the loaded libraries with threads; it takes 10 ms to find them."""
    import sklearn.decomposition
    import sklearn.metrics
    import sklearn.neighbors  # noqa: F401 - only what is loaded can be limited

    return ThreadpoolController()


@fixed_settings()
def input_plane(x_NxF: torch.Tensor) -> Plane:
    """Return the plane of the input space.

    Instances with a value that isn't finite are left out of the fit; their points are NaN.
    """
    return Plane("input", "Input space", *_project(x_NxF))


@fixed_settings()
def hidden_planes(representations: Iterable[torch.Tensor]) -> list[Plane]:
    """Return the planes of the activations (N x H) of each hidden layer, as `input_plane` does.

    It takes one layer at a time, so an iterator needs to hold only one in memory.
    """
    # map() releases one layer's activations before it takes the next; a loop variable would hold both.
    return [
        Plane(f"hidden{layer}", f"Representation after hidden layer {layer}", *projection)
        for layer, projection in enumerate(map(_project, representations), start=1)
    ]


@fixed_settings()
def planes_of(network: Network, dataset: Dataset) -> list[Plane]:
    """Return the planes of a network's representations of the training set.

    Those of a module are of the first OF_MODULES instances.
    """
    weight = next(network.parameters())
    if isinstance(network, LogisticRegression):
        return []
    if isinstance(network, MultilayerPerceptron):
        return hidden_planes(network.representations(dataset.x_train.to(weight.device, weight.dtype)))
    x_NxF = dataset.x_train[:OF_MODULES].to(weight.device, weight.dtype)
    return [
        Plane(path, f"Representation before {path}", *_project(h_NxH))
        for path, h_NxH in layer_inputs(network, x_NxF).items()
    ]


def _representations(network: Network, x_NxF: torch.Tensor) -> Iterable[tuple[str, torch.Tensor]]:
    """Return a network's representations of instances, N x H each, by name."""
    if isinstance(network, LogisticRegression):
        return ()
    if isinstance(network, MultilayerPerceptron):
        return ((f"hidden{layer}", h) for layer, h in enumerate(network.representations(x_NxF), start=1))
    return layer_inputs(network, x_NxF).items()


def names(network: Network, dataset: Dataset) -> list[str]:
    """Return the names of a network's representations."""
    weight = next(network.parameters())
    return [
        name for name, _ in _representations(network, dataset.x_train[:2].to(weight.device, weight.dtype))
    ]


@fixed_settings()
@torch.no_grad()
def separation(network: Network, dataset: Dataset) -> dict[str, float]:
    """Return metrics of how well the input space and each representation separate the classes.

    They are measured on FITTED training and MEASURED test instances, the same for every run. A space with
    values that aren't finite, or all equal, gets no metrics; test instances of one class get no silhouette.
    - `space/<name>/explained_variance`: share of variance on the first two principal components, the plane.
    - `space/<name>/silhouette`, `.../silhouette_plane`: mean silhouette of the test instances with classes as
      clusters (Rousseeuw, 1987), -1 to 1, in the whole space and on that plane.
    - `space/<name>/knn_accuracy`: accuracy of the vote of the NEIGHBOURS nearest training instances.
    """
    weight = next(network.parameters())
    if dataset.description.digest not in _of_inputs:
        fitted, measured = _subsample(dataset)
        x_NxF = torch.cat([dataset.x_train[fitted], dataset.x_test[measured]])
        _of_inputs[dataset.description.digest] = _measured("input", x_NxF, dataset)
    found = dict(_of_inputs[dataset.description.digest])
    if not isinstance(network, LogisticRegression):
        fitted, measured = _subsample(dataset)
        x_NxF = torch.cat([dataset.x_train[fitted], dataset.x_test[measured]]).to(weight.device, weight.dtype)
        for name, h_NxH in _representations(network, x_NxF):
            found |= _measured(name, h_NxH, dataset)
    return found


_of_inputs: dict[str, dict[str, float]] = {}
"""Metrics of input spaces by the data's digest: caching by Dataset would keep a worker's shared memory."""


def _subsample(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows of training and of test instances, the same in every call."""
    drawn = torch.Generator().manual_seed(0)
    return (
        torch.randperm(len(dataset.x_train), generator=drawn)[:FITTED],
        torch.randperm(len(dataset.x_test), generator=drawn)[:MEASURED],
    )


def _measured(name: str, x_NxF: torch.Tensor, dataset: Dataset) -> dict[str, float]:
    from sklearn.decomposition import PCA  # here, because loading these takes 0.7 s
    from sklearn.metrics import silhouette_score
    from sklearn.neighbors import KNeighborsClassifier

    fitted, measured = _subsample(dataset)
    x, y = x_NxF.detach().cpu().double().numpy(), dataset.y_test[measured].numpy()
    fit_NxF, test_NxF = x[: len(fitted)], x[len(fitted) :]
    if not np.isfinite(x).all() or min(fit_NxF.shape) < 2 or not np.ptp(fit_NxF, axis=0).any():
        return {}
    pca = PCA(2, svd_solver=_solver(*fit_NxF.shape), random_state=0).fit(fit_NxF)
    knn = KNeighborsClassifier(min(NEIGHBOURS, len(fit_NxF))).fit(fit_NxF, dataset.y_train[fitted].numpy())
    found = {
        "explained_variance": float(pca.explained_variance_ratio_.sum()),
        "knn_accuracy": float(knn.score(test_NxF, y)),
    }
    if 1 < len(np.unique(y)) < len(y):
        found["silhouette"] = float(silhouette_score(test_NxF, y))
        found["silhouette_plane"] = float(silhouette_score(pca.transform(test_NxF), y))
    return {f"space/{name}/{key}": value for key, value in found.items() if math.isfinite(value)}


def _project(x_NxF: torch.Tensor) -> tuple[NDArray[np.float32], tuple[float, float]]:
    x = x_NxF.detach().cpu()
    values_NxF = (x if x.dtype == torch.float64 else x.float()).numpy()
    finite_N = np.isfinite(values_NxF).all(axis=1)
    points_Nx2 = np.full((len(x), 2), np.nan, dtype=np.float32)
    points_Nx2[finite_N], ratio = _principal_plane(values_NxF if finite_N.all() else values_NxF[finite_N])
    return points_Nx2, ratio


def _principal_plane(x_NxF: FloatArray) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return coordinates (N x 2) and explained variance ratios of finite values; zeros if all are equal."""
    from sklearn.decomposition import PCA  # here, because loading it takes 0.6 s

    # Squares of values near the ends of float32's range would overflow, so values are scaled to -1 … 1.
    scale = _greatest_magnitude(x_NxF)
    centred_NxF = _centred(x_NxF / scale) if scale > 0 else x_NxF
    if _greatest_magnitude(centred_NxF) == 0:
        return np.zeros((len(x_NxF), 2), dtype=np.float32), (0.0, 0.0)
    if x_NxF.shape[1] == 1:
        centred_NxF = np.pad(centred_NxF, ((0, 0), (0, 1)))  # a second feature that is always 0
    pca = PCA(2, svd_solver=_solver(*centred_NxF.shape), copy=False, random_state=0)
    points_Nx2 = pca.fit_transform(centred_NxF)
    first, second = pca.explained_variance_ratio_.tolist()
    with np.errstate(over="ignore"):  # values beyond float32 become infinite
        return (points_Nx2 * scale).astype(np.float32), (first, second)


def _greatest_magnitude(x_NxF: FloatArray) -> float:
    return max(-float(x_NxF.min(initial=0.0)), float(x_NxF.max(initial=0.0)))  # np.abs would make a copy


def _centred(x_NxF: FloatArray) -> FloatArray:
    """Subtract the mean in place: scikit-learn's covariance loses digits where a mean is far from zero.

    The first instance is subtracted before the mean, so that a constant feature becomes exactly zero and
    rounding doesn't look like variance.
    """
    x_NxF -= x_NxF[0].copy()
    x_NxF -= x_NxF.mean(axis=0)
    return x_NxF


def _solver(instances: int, features: int) -> str:
    """Return the fastest deterministic, exact solver; scikit-learn's randomized one is neither."""
    if features <= WIDEST_COVARIANCE:
        return "covariance_eigh"
    return "arpack" if instances > 2 else "full"  # ARPACK finds fewer components than there are instances
