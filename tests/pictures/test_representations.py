"""The planes of the feature spaces, held against a singular value decomposition in float64."""

import subprocess
import sys
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from lockstep.data.datasets import Dataset
from lockstep.data.description import DataDescription
from lockstep.pictures import representations
from lockstep.pictures.representations import hidden_planes, input_plane, separation
from lockstep.training.networks import LogisticRegression, MultilayerPerceptron


def reference(x_NxF: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = x_NxF.double().numpy()
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return (u * s)[:, :2], (s**2 / (s**2).sum())[:2]


def spread(instances: int, features: int, seed: int = 0) -> torch.Tensor:
    """Normal values whose first two directions stand out, in a random orientation."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(instances, features, generator=generator)
    x[:, :2] *= torch.tensor([12.0, 6.0])
    rotation, _ = torch.linalg.qr(torch.randn(features, features, generator=generator))
    return x @ rotation


def assert_is_reference(x_NxF: torch.Tensor) -> None:
    plane = input_plane(x_NxF)
    points, ratio = reference(x_NxF)
    signs = np.sign((points * plane.points_Nx2).sum(axis=0))
    np.testing.assert_allclose(plane.points_Nx2, points * signs, rtol=1e-3, atol=1e-3 * points.std())
    np.testing.assert_allclose(plane.explained_variance_ratio, ratio, rtol=1e-3)


@pytest.mark.parametrize(
    ("instances", "features"),
    [(500, 40), (30, 200), (400, 2), (60, 1000), (60, 1001), (3, 1100), (2, 1100), (2, 7)],
)
def test_planes_are_those_of_a_float64_svd(instances: int, features: int) -> None:
    x = spread(instances, features)
    if instances > 2:
        assert_is_reference(x)
    else:  # two instances lie on a line: the second component is rounding, in the reference as well
        plane = input_plane(x)
        points, _ = reference(x)
        np.testing.assert_allclose(np.abs(plane.points_Nx2[:, 0]), np.abs(points[:, 0]), rtol=1e-3)
        np.testing.assert_allclose(plane.explained_variance_ratio, (1, 0), atol=1e-6)


@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_a_mean_far_from_zero_costs_no_digits(mean: float) -> None:
    assert_is_reference(spread(500, 40) + mean)


def test_values_all_negative() -> None:
    assert_is_reference(-spread(500, 40).abs())


@pytest.mark.parametrize("features", [600, 1100])
def test_exact_where_no_direction_stands_out(features: int) -> None:
    x = torch.randn(700, features, generator=torch.Generator().manual_seed(0))
    plane = input_plane(x)
    np.testing.assert_allclose(plane.explained_variance_ratio, reference(x)[1], rtol=1e-5)


def test_an_outlier_as_first_instance_costs_no_digits() -> None:
    x = spread(5000, 10)
    x[0] += 1e4
    assert_is_reference(x)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 1e36])
def test_the_ends_of_the_range_of_float32(scale: float) -> None:
    x = spread(100, 10)
    plane, scaled = input_plane(x), input_plane(x * scale)
    accuracy = 0.02 if scale < 1e-38 else 1e-5  # subnormal numbers have few digits
    np.testing.assert_allclose(scaled.explained_variance_ratio, plane.explained_variance_ratio, rtol=accuracy)
    expected = plane.points_Nx2.astype(np.float64) * scale
    np.testing.assert_allclose(scaled.points_Nx2, expected, rtol=accuracy, atol=accuracy * expected.std())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    assert_is_reference((spread(200, 10) * 10).to(dtype))


def test_names_and_titles_and_types() -> None:
    found = [input_plane(spread(20, 5)), *hidden_planes(iter([spread(20, 4, seed=1), spread(20, 3, seed=2)]))]
    assert [(plane.name, plane.title) for plane in found] == [
        ("input", "Input space"),
        ("hidden1", "Representation after hidden layer 1"),
        ("hidden2", "Representation after hidden layer 2"),
    ]
    for plane, features, seed in zip(found, (5, 4, 3), (0, 1, 2), strict=True):
        assert plane.points_Nx2.dtype == np.float32
        assert [type(ratio) for ratio in plane.explained_variance_ratio] == [float, float]
        _, ratio = reference(spread(20, features, seed))
        np.testing.assert_allclose(plane.explained_variance_ratio, ratio, rtol=1e-3)


def test_only_one_representation_is_held_in_memory() -> None:
    def hidden_representations() -> Iterator[torch.Tensor]:
        for seed in range(3):
            activations = spread(20, 4, seed)
            held = weakref.ref(activations)
            yield activations
            del activations
            assert held() is None

    assert len(hidden_planes(hidden_representations())) == 3


def test_the_tensors_stay_as_they_are() -> None:
    x, activations = spread(20, 5), spread(20, 4).requires_grad_()
    before = x.clone(), activations.detach().clone()
    input_plane(x)
    hidden_planes([activations])
    assert torch.equal(x, before[0])
    assert torch.equal(activations.detach(), before[1])


@pytest.mark.parametrize("features", [40, 1100])
def test_repeatable_to_the_bit(features: int) -> None:
    first, second = input_plane(spread(100, features)), input_plane(spread(100, features))
    assert first.points_Nx2.tobytes() == second.points_Nx2.tobytes()
    assert first.explained_variance_ratio == second.explained_variance_ratio


@pytest.mark.parametrize("features", [40, 1100])
def test_signs_do_not_depend_on_the_order_of_the_instances(features: int) -> None:
    x = spread(100, features)
    plane = input_plane(x)
    for seed in range(5):
        order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
        shuffled = input_plane(x[order])
        np.testing.assert_allclose(shuffled.points_Nx2, plane.points_Nx2[order.numpy()], atol=1e-2)


def test_one_feature_is_the_first_component() -> None:
    x = torch.tensor([[1.0], [2.0], [6.0]])
    plane = input_plane(x)
    np.testing.assert_allclose(plane.points_Nx2, [[-2, 0], [-1, 0], [3, 0]], atol=1e-6)
    assert plane.explained_variance_ratio == pytest.approx((1, 0))


@pytest.mark.parametrize(
    "x_NxF",
    [
        torch.full((1000, 7), 0.1),
        torch.full((1000, 7), 0.1, dtype=torch.float64),
        torch.full((30, 1200), 0.1),
        torch.tensor([[0.1, 0.3, 0.7]]).repeat(1000, 1),
        torch.tensor([[0.1, 0.3, 0.7]], dtype=torch.float64).repeat(1000, 1),
        torch.zeros(10, 4),
        torch.randn(1, 4),
        torch.zeros(0, 4),
        torch.zeros(4, 0),
    ],
    ids=lambda x: f"{tuple(x.shape)} {x.dtype}",
)
def test_without_variance_points_and_ratios_are_zero(x_NxF: torch.Tensor) -> None:
    plane = input_plane(x_NxF)
    np.testing.assert_array_equal(plane.points_Nx2, np.zeros((len(x_NxF), 2)))
    assert plane.explained_variance_ratio == (0.0, 0.0)


@pytest.mark.parametrize("features", [50, 1200])
def test_one_direction_only(features: int) -> None:
    x = torch.zeros(40, features)
    x[:, 3] = torch.arange(40.0)
    plane = input_plane(x)
    np.testing.assert_allclose(plane.points_Nx2[:, 0], np.arange(40) - 19.5, rtol=1e-5)
    np.testing.assert_allclose(plane.points_Nx2[:, 1], 0, atol=1e-4)
    assert plane.explained_variance_ratio == pytest.approx((1, 0), abs=1e-6)


def test_instances_that_are_not_finite_count_for_nothing() -> None:
    x = spread(100, 6)
    expected = input_plane(x[2:])
    x[0, 3], x[1, 5] = torch.nan, -torch.inf
    plane = input_plane(x)
    assert np.isnan(plane.points_Nx2[:2]).all()
    np.testing.assert_array_equal(plane.points_Nx2[2:], expected.points_Nx2)
    assert plane.explained_variance_ratio == expected.explained_variance_ratio


def test_nothing_finite_at_all() -> None:
    plane = input_plane(torch.full((5, 3), torch.nan))
    assert np.isnan(plane.points_Nx2).all()
    assert plane.explained_variance_ratio == (0.0, 0.0)


def test_points_beyond_float32_become_infinite_without_a_warning() -> None:
    plane = input_plane(spread(20, 3).double() * 1e300)
    assert np.isinf(plane.points_Nx2).any()
    assert np.isfinite(plane.explained_variance_ratio).all()


def test_importing_loads_neither_scikit_learn_nor_pyplot() -> None:
    code = (
        "import sys, lockstep.pictures.plots, lockstep.pictures.representations;"
        "print(sorted({'sklearn', 'matplotlib.pyplot'} & sys.modules.keys()))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def clusters(noise, digest):
    """Three classes about three corners of a cube of four dimensions."""
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(3, (3000,), generator=generator)
    x = torch.eye(4)[y] + noise * torch.randn(3000, 4, generator=generator)
    n_test = len(x) - 2500
    description = DataDescription("clusters", digest, (4,), ("a", "b", "c"), 2500, n_test, "drawn")
    return Dataset(description, x[:2500], y[:2500], x[2500:], y[2500:])


def test_classes_that_lie_apart_are_measured_as_apart():
    network = MultilayerPerceptron(4, 3, (8, 5), generator=torch.Generator().manual_seed(0))
    apart = separation(network, clusters(0.01, "apart"))
    measures = ("explained_variance", "knn_accuracy", "silhouette", "silhouette_plane")
    assert set(apart) == {f"space/{name}/{m}" for name in ("input", "hidden1", "hidden2") for m in measures}
    for name in ("input", "hidden1", "hidden2"):
        assert apart[f"space/{name}/knn_accuracy"] == 1
        assert apart[f"space/{name}/silhouette"] > 0.9
        assert apart[f"space/{name}/explained_variance"] > 0.99  # three corners lie in a plane
    mixed = separation(LogisticRegression(4, 3), clusters(50.0, "mixed"))
    assert set(mixed) == {f"space/input/{m}" for m in measures}
    assert mixed["space/input/knn_accuracy"] == pytest.approx(1 / 3, abs=0.1)
    assert mixed["space/input/silhouette"] == pytest.approx(0, abs=0.05)
    assert mixed["space/input/explained_variance"] == pytest.approx(0.5, abs=0.05)


def test_a_space_that_is_not_finite_has_no_measures():
    network = MultilayerPerceptron(4, 3, (8, 5))
    with torch.no_grad():
        network.hidden[1].bias[0] = float("inf")
    names = {key.split("/")[1] for key in separation(network, clusters(0.1, "infinite"))}
    assert names == {"input", "hidden1"}


def test_a_space_without_variance_has_no_measures():
    x = torch.ones(3000, 1500)  # so wide that ARPACK would be asked
    y = torch.arange(3000) % 3
    description = DataDescription("constant", "constant", (1500,), ("a", "b", "c"), 2500, 500, "made")
    data = Dataset(description, x[:2500], y[:2500], x[2500:], y[2500:])
    assert separation(LogisticRegression(1500, 3), data) == {}


@pytest.mark.parametrize(
    "measure",
    [
        pytest.param(lambda data, network: input_plane(data.x_train).points_Nx2.tobytes(), id="input plane"),
        pytest.param(
            lambda data, network: [
                plane.points_Nx2.tobytes() for plane in hidden_planes(network.representations(data.x_train))
            ],
            id="hidden planes",
        ),
        pytest.param(lambda data, network: separation(network, data), id="separation"),
    ],
)
def test_threads_and_denormals_of_the_process_change_no_bit(measure, monkeypatch):
    drawn = torch.Generator().manual_seed(0)
    x, y = torch.randn(900, 300, generator=drawn), torch.randint(3, (900,), generator=drawn)
    description = DataDescription("wide", "wide", (300,), ("a", "b", "c"), 700, 200, "drawn")
    data = Dataset(description, x[:700], y[:700], x[700:], y[700:])
    network = MultilayerPerceptron(300, 3, (150, 100), generator=drawn)
    import sklearn.decomposition  # noqa: F401 - loaded later, it would be a library more

    measured = []
    for threads, flush in ((1, True), (2, False)):
        monkeypatch.setattr(representations, "_of_inputs", {})
        with threadpool_limits(threads):
            torch.set_num_threads(threads)
            torch.set_flush_denormal(flush)
            before = [library["num_threads"] for library in threadpool_info()]
            measured.append(measure(data, network))
            assert [library["num_threads"] for library in threadpool_info()] == before
            assert torch.get_num_threads() == threads
            assert (torch.full((), 2.0**-126).mul(0.5).item() == 0) == flush
            torch.set_flush_denormal(False)
            torch.set_num_threads(1)
    assert measured[0] == measured[1]
