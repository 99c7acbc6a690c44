"""What the pictures show: their data, names and colours; not how many pixels they have."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import savgol_filter

from lockstep.pictures import plots

RNG = np.random.default_rng(0)
DIGITS = [str(digit) for digit in range(10)]
EPOCHS = np.array([100, 200, 300])


def legend_texts(figure: Figure) -> list[str]:
    (legend,) = figure.legends or [figure.axes[0].get_legend()]
    return [text.get_text() for text in legend.get_texts()]


def texts_of(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    return [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]


def pixels(image: AxesImage) -> NDArray[np.float64]:
    return np.ma.filled(image.get_array(), np.nan)  # masked, and so equal to anything, where not finite


def assert_nothing_is_cut_off(figure: Figure) -> None:
    figure.canvas.draw()
    content = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert content.x0 >= 0 and content.y0 >= 0 and content.x1 <= width and content.y1 <= height


# --- smooth ----------------------------------------------------------------------------------------


def test_smooth_is_savgol_filter() -> None:
    values = RNG.normal(size=500)
    np.testing.assert_array_equal(plots.smooth(values), savgol_filter(values, 21, 3))
    np.testing.assert_array_equal(plots.smooth(values, window=7, order=2), savgol_filter(values, 7, 2))


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_smooth_takes_the_longest_odd_window_that_fits(listed: list[float]) -> None:
    values = np.array(listed)
    windows = [window for window in (5, 7, 9, 11, 13, 15, 17, 19, 21) if window <= len(values)]
    expected = savgol_filter(values, windows[-1], 3) if windows else values
    np.testing.assert_array_equal(plots.smooth(values), expected)


@settings(deadline=None)
@given(st.integers(1, 60), st.lists(st.floats(-10, 10), min_size=4, max_size=4))
def test_smooth_keeps_cubic_polynomials(length: int, coefficients: list[float]) -> None:
    values = np.polynomial.Polynomial(coefficients)(np.linspace(-1, 1, length))
    np.testing.assert_allclose(plots.smooth(values), values, atol=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60))
def test_smooth_leaves_what_is_not_finite_and_nothing_else(listed: list[float]) -> None:
    values = np.array(listed, dtype=np.float32)
    smoothed = plots.smooth(values)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(smoothed[~finite], values[~finite])
    assert np.isfinite(smoothed[finite]).all()


def test_smooth_takes_each_finite_stretch_by_itself() -> None:
    values = RNG.normal(size=100)
    values[40], values[70] = np.nan, np.inf
    before = values.copy()
    smoothed = plots.smooth(values)
    np.testing.assert_array_equal(values, before)
    for stretch in (slice(0, 40), slice(41, 70), slice(71, 100)):
        np.testing.assert_array_equal(smoothed[stretch], savgol_filter(values[stretch], 21, 3))


# --- curves ----------------------------------------------------------------------------------------


def test_curves_draw_the_values_given() -> None:
    train = RNG.random(300)
    test, val = np.array([0.9, 0.5, 0.25]), np.array([0.8, 0.6, 0.333333])
    figure = plots.curves("loss", train, {"test": (EPOCHS, test), "val": (EPOCHS, val)}, "Loss of a run")
    raw, smoothed, test_line, val_line = figure.axes[0].lines
    np.testing.assert_array_equal(raw.get_xdata(), np.arange(1, 301))
    np.testing.assert_array_equal(raw.get_ydata(), train)
    np.testing.assert_array_equal(smoothed.get_xdata(), np.arange(1, 301))
    np.testing.assert_array_equal(smoothed.get_ydata(), savgol_filter(train, 21, 3))
    for line, values in ((test_line, test), (val_line, val)):
        np.testing.assert_array_equal(line.get_xdata(), EPOCHS)
        np.testing.assert_array_equal(line.get_ydata(), values)
        assert line.get_marker() not in ("None", "", None)
    assert test_line.get_color() != val_line.get_color()
    assert raw.get_linewidth() < smoothed.get_linewidth() and raw.get_alpha() < 0.5
    assert raw.get_zorder() <= smoothed.get_zorder()
    assert texts_of(figure) == ["Loss of a run", "iteration", "cross-entropy loss"]
    assert legend_texts(figure) == [
        "train, each minibatch",
        f"train, smoothed: {savgol_filter(train, 21, 3)[-1]:.4g}",
        "test: 0.25",
        "val: 0.3333",
    ]
    assert_nothing_is_cut_off(figure)
    assert not figure.legends[0].get_window_extent().overlaps(figure.axes[0].get_window_extent())


def test_a_restored_epoch_is_marked_and_the_legend_has_its_values() -> None:
    test, val = np.array([0.9, 0.25, 0.5]), np.array([0.8, 0.333333, 0.6])
    evaluations = {"test": (EPOCHS, test), "val": (EPOCHS, val)}
    figure = plots.curves("loss", RNG.random(300), evaluations, "Loss", restored_epoch=2)
    mark = figure.axes[0].lines[-1]
    assert list(mark.get_xdata()) == [EPOCHS[1]] * 2
    assert legend_texts(figure)[2:] == ["test, epoch 2: 0.25", "val, epoch 2: 0.3333", "epoch 2 restored"]
    assert_nothing_is_cut_off(figure)


def test_curves_of_accuracy_without_evaluations() -> None:
    figure = plots.curves("accuracy", np.linspace(0.1, 0.975, 300), {}, "Accuracy")
    assert texts_of(figure) == ["Accuracy", "iteration", "accuracy"]
    assert legend_texts(figure) == ["train, each minibatch", "train, smoothed: 0.975"]
    assert figure.axes[0].get_yscale() == "linear"
    assert figure.axes[0].get_ylim() == pytest.approx((0.525, 1.0), abs=0.01)  # the second half, and a margin


def test_the_axis_of_accuracies_shows_test_accuracies_beside_a_noisy_batch() -> None:
    train = np.concatenate([np.zeros(500), [0.2], np.full(499, 0.95)])
    figure = plots.curves("accuracy", train, {"test": (EPOCHS, np.array([0.5, 0.9, 0.99]))}, "Accuracy")
    assert figure.axes[0].get_ylim() == pytest.approx((0.9, 0.99), abs=0.006)


def test_curves_of_a_run_that_diverged() -> None:
    train = np.full(300, 2.3)
    train[150:180] = np.geomspace(3, 1e30, 30)
    train[180:] = np.nan
    figure = plots.curves("loss", train, {"test": (EPOCHS, np.array([0.5, np.inf, np.nan]))}, "Loss")
    axes = figure.axes[0]
    assert legend_texts(figure) == [
        "train, each minibatch",
        "train, smoothed: nan",
        "test: nan",
        "not finite at iteration 181",
    ]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), train)
    assert axes.lines[3].get_xdata()[0] == 181
    # The whole run stays in view, from the loss it began with to the greatest there was.
    assert axes.get_yscale() == "symlog"
    assert axes.get_xlim()[0] <= 1 and axes.get_xlim()[1] >= 300
    assert axes.get_ylim()[0] == 0 and 1e30 <= axes.get_ylim()[1] < 1e40
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize("train", [[np.nan] * 50, [0.5], [0.0] * 30, [np.inf, 1.0], [1e300] * 40, [1e-8] * 9])
@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_curves_of_odd_runs(metric: str, train: list[float]) -> None:
    evaluations = {
        "test": (np.array([], dtype=int), np.array([])),
        "val": (np.array([1]), np.array([np.nan])),
    }
    figure = plots.curves(metric, np.array(train), evaluations, "Odd")
    assert legend_texts(figure)[2:4] == ["test: none", "val: nan"]
    assert_nothing_is_cut_off(figure)


def test_dollar_signs_are_no_mathematics(tmp_path: Path) -> None:
    figure = plots.curves("loss", np.ones(30), {}, r"from $5_{ to $6")
    plots.save(figure, tmp_path / "curve.png")
    figure = plots.plane(np.zeros((2, 2)), np.array([0, 1]), ["$5_{ to $6", "$$"], (0, 0), "$_{$")
    plots.save(figure, tmp_path / "plane.png")


# --- plane -----------------------------------------------------------------------------------------


def clouds(instances: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points in a ring of clouds, one for each class, the instances sorted by class."""
    y_N = np.sort(np.arange(instances) % classes)
    angle = 2 * np.pi * y_N / classes
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 9 + RNG.normal(size=(instances, 2))
    return points.astype(np.float32), y_N


def drawn(axes: Axes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points and their colours, in the order in which they are drawn."""
    for scatter in axes.collections:  # of many classes
        if isinstance(scatter, PathCollection):
            return np.asarray(scatter.get_offsets()), scatter.get_facecolors()[:, :3]
    if not axes.lines:
        return np.empty((0, 2)), np.empty((0, 3))
    colors = [line.get_color()[:3] for line in axes.lines for _ in line.get_xdata()]
    return np.concatenate([line.get_xydata() for line in axes.lines]), np.reshape(colors, (-1, 3))


def assert_drawn_in(axes: Axes, points: NDArray[np.float32], colors: NDArray[np.float64]) -> None:
    """Each point once, in its colour, whatever the order."""
    expected = np.column_stack([points, colors[:, :3]]).astype(np.float64)
    found = np.column_stack(drawn(axes))
    sort = lambda rows: rows[np.lexsort(rows.T)]  # noqa: E731
    np.testing.assert_allclose(sort(found), sort(expected))


@pytest.mark.parametrize(("classes", "palette"), [(2, "tab10"), (10, "tab10"), (11, "tab20"), (20, "tab20")])
def test_plane_draws_each_instance_in_the_colour_of_its_class(classes: int, palette: str) -> None:
    points, y = clouds(1000, classes)
    names = [f"class {label}" for label in range(classes)]
    figure = plots.plane(points, y, names, (0.09705, 0.071), "Input space")
    colors = colormaps[palette](np.arange(classes))
    assert_drawn_in(figure.axes[0], points, colors[y])
    assert texts_of(figure) == ["Input space", "PC 1 (9.7 % of variance)", "PC 2 (7.1 % of variance)"]
    assert legend_texts(figure) == names
    markers = figure.axes[0].get_legend().legend_handles
    np.testing.assert_allclose([to_rgba(marker.get_color()) for marker in markers], colors)
    assert min(marker.get_markersize() for marker in markers) > figure.axes[0].lines[0].get_markersize()
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("instances", "area"), [(10, 16), (6000, 5), (60_000, 2.5)])
def test_markers_are_the_smaller_the_more_there_are(instances: int, area: float) -> None:
    points, y = clouds(instances, 10)
    dots = plots.plane(points, y, DIGITS, (0.5, 0.5), "").axes[0].lines
    assert [dot.get_markersize() ** 2 for dot in dots] == pytest.approx([area] * len(dots))
    assert {dot.get_markeredgewidth() for dot in dots} == {0}


def test_plane_of_many_classes_has_a_scale_for_a_legend() -> None:
    points, y = clouds(1000, 47)
    names = [f"class {label}" for label in range(47)]
    figure = plots.plane(points, y, names, (0.5, 0.25), "Many")
    assert_drawn_in(figure.axes[0], points, colormaps["viridis"](y / 46))
    assert figure.axes[0].get_legend() is None
    bar = figure.axes[1]
    (scale,) = [item for item in bar.collections if isinstance(item, QuadMesh)]
    assert scale.get_clim() == (0, 46) and scale.get_cmap().name == "viridis"
    assert bar.get_ylim() == (0, 46)
    assert [names[int(tick)] for tick in bar.get_yticks()] == [
        text.get_text() for text in bar.get_yticklabels()
    ]
    assert bar.get_yticks()[0] == 0 and bar.get_yticks()[-1] == 46
    assert bar.get_ylabel() == "class"
    assert_nothing_is_cut_off(figure)


def test_plane_mixes_the_order_of_sorted_classes_so_that_none_covers_the_others() -> None:
    points, y = clouds(1000, 2)
    _, colors = drawn(plots.plane(points, y, ["a", "b"], (0.5, 0.5), "").axes[0])
    of_first = np.isclose(colors, to_rgba("tab:blue")[:3]).all(axis=1)
    assert of_first.sum() == 500
    assert 200 < of_first[:500].sum() < 300


def test_plane_names_the_classes_at_their_medians() -> None:
    points, y = clouds(1000, 10)
    figure = plots.plane(points, y, DIGITS, (0.5, 0.5), "")
    assert [text.get_text() for text in figure.axes[0].texts] == DIGITS
    medians = [np.median(points[y == label], axis=0) for label in range(10)]
    np.testing.assert_allclose([text.get_position() for text in figure.axes[0].texts], medians, rtol=1e-5)


def test_where_names_in_the_plane_would_overlap_the_legend_alone_names_all() -> None:
    points, y = clouds(1000, 10)
    points[y == 3] += np.median(points[y == 4], axis=0) - np.median(points[y == 3], axis=0)
    figure = plots.plane(points, y, DIGITS, (0.5, 0.5), "")
    assert not figure.axes[0].texts
    assert legend_texts(figure) == DIGITS


def test_plane_says_how_many_instances_it_leaves_out() -> None:
    points, y = clouds(100, 2)
    points[3, 0], points[99] = np.nan, np.inf
    figure = plots.plane(points, y, ["a", "b"], (0.5, 0.5), "Half")
    assert figure.axes[0].get_title() == "Half\n2 of 100 instances are not finite, so not shown"
    kept = np.isfinite(points).all(axis=1)
    assert_drawn_in(figure.axes[0], points[kept], colormaps["tab10"](y[kept]))


@pytest.mark.parametrize("value", [np.nan, 0.0, 3e38])
@pytest.mark.parametrize("instances", [0, 1, 60])
def test_plane_of_odd_spaces(value: float, instances: int) -> None:
    points, y = np.full((instances, 2), value, dtype=np.float32), np.arange(instances) % 10
    figure = plots.plane(points, y, DIGITS, (0.0, 0.0), "Odd")
    assert len(drawn(figure.axes[0])[0]) == (instances if np.isfinite(value) else 0)
    assert_nothing_is_cut_off(figure)


# --- samples ---------------------------------------------------------------------------------------


def tick_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def cells(figure: Figure) -> list[tuple[int, int]]:
    """(row, column) of each image."""
    extents = [image.get_extent() for image in figure.axes[0].images]
    return [(int(min(bottom, top)), int(left)) for left, _, bottom, top in extents]


def test_samples_show_the_first_ten_instances_of_each_class() -> None:
    x, y = RNG.normal(size=(300, 12)) * 5 - 3, RNG.integers(0, 4, 300)
    figure = plots.samples(x, y, (3, 4), ["a", "b", "c", "d"])
    chosen = np.concatenate([np.flatnonzero(y == label)[:10] for label in range(4)])
    low, high = x[chosen].min(), x[chosen].max()
    images = figure.axes[0].images
    assert cells(figure) == [(row, column) for row in range(4) for column in range(10)]
    for image, index in zip(images, chosen, strict=True):
        np.testing.assert_allclose(pixels(image), (x[index].reshape(3, 4) - low) / (high - low))
        assert image.get_clim() == (0, 1) and image.get_cmap().name == "gray"
    assert tick_texts(figure) == ["a", "b", "c", "d"]
    assert figure.axes[0].get_title() == "Sample instances of each class"
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(
    ("feature_shape", "axis"),
    [
        *[((3, 4, 5), 0), ((5, 6, 3), 2), ((1, 4, 5), 0), ((5, 6, 1), 2)],
        *[((4, 5, 3), 0), ((4, 5, 6), 0), ((5, 6, 4), 2)],  # four channels, of which three are shown
    ],
)
def test_samples_in_colour(feature_shape: tuple[int, int, int], axis: int) -> None:
    channels = np.moveaxis(RNG.random((2, *feature_shape)), axis + 1, 0)
    channels[3:] += 9  # a fourth channel doesn't change the scale either
    x, channels = np.moveaxis(channels, 0, axis + 1).reshape(2, -1), channels[:3]
    figure = plots.samples(x, np.array([1, 0]), feature_shape, ["a", "b"])
    image = pixels(figure.axes[0].images[0])  # of the class "a", so the second instance
    expected = np.moveaxis(channels[:, 1], 0, -1)
    low, high = channels.min(), channels.max()
    np.testing.assert_allclose(image, ((expected - low) / (high - low)).squeeze())


def test_samples_keep_the_proportions_of_an_image() -> None:
    figure = plots.samples(RNG.random((40, 8 * 16)), np.arange(40) % 4, (8, 16), DIGITS[:4])
    figure.canvas.draw()
    box = figure.axes[0].images[0].get_window_extent()
    assert box.width / box.height == pytest.approx(2, rel=0.01)


def test_samples_with_fewer_instances_leave_cells_empty() -> None:
    figure = plots.samples(RNG.random((4, 6)), np.array([2, 0, 2, 0]), (2, 3), ["a", "b", "c"])
    assert cells(figure) == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert tick_texts(figure) == ["a", "b", "c"]


def test_samples_of_more_than_ten_classes_show_ten() -> None:
    figure = plots.samples(
        RNG.random((260, 4)), np.arange(260) % 26, (2, 2), [f"letter {i}" for i in range(26)]
    )
    assert len(figure.axes[0].images) == 100
    assert tick_texts(figure) == [f"letter {i}" for i in range(10)]
    assert figure.axes[0].get_title() == "Sample instances of each class (first 10 of 26)"


@pytest.mark.parametrize("feature_shape", [(6,), (1,), (2, 2, 2), (2, 1, 1, 3)])
def test_samples_that_are_no_images_are_profiles(feature_shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=(20, int(np.prod(feature_shape))))
    figure = plots.samples(x, np.arange(20) % 2, feature_shape, ["a", "b"])
    assert not figure.axes[0].images
    unit = (x - x.min()) / (x.max() - x.min())
    for number, line in enumerate(figure.axes[0].lines):
        row, column = divmod(number, 10)
        across, up = line.get_data()
        assert column < across[0] < across[-1] < column + 1 and len(across) >= 2
        heights = (row + 0.96 - up) / 0.92  # rows count downwards, each with a margin of 4 %
        np.testing.assert_allclose(
            heights, np.broadcast_to(unit[2 * column + row], heights.shape), atol=1e-12
        )
    assert len(figure.axes[0].lines) == 20
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(
    "values", [np.zeros((3, 4)), np.full((3, 4), np.nan), np.full((3, 4), 7), np.zeros((0, 4))]
)
def test_samples_of_odd_values(values: NDArray[np.float64]) -> None:
    y = np.zeros(len(values), dtype=int)
    assert len(plots.samples(values, y, (2, 2), ["a", "b"]).axes[0].images) == len(values)
    assert_nothing_is_cut_off(plots.samples(values, y, (4,), ["a", "b"]))


def test_samples_with_a_value_that_is_not_finite_still_show_the_others() -> None:
    x = np.array([[0.0, 1.0, 2.0, np.inf], [0.0, np.nan, 4.0, -np.inf]])
    images = plots.samples(x, np.array([0, 0]), (2, 2), ["a"]).axes[0].images
    np.testing.assert_array_equal(pixels(images[0]), [[0, 0.25], [0.5, 1]])
    np.testing.assert_array_equal(pixels(images[1]), [[0, 0], [1, 0]])


# --- save ------------------------------------------------------------------------------------------


def test_save_writes_the_same_bytes_each_time(tmp_path: Path) -> None:
    points, y = clouds(500, 10)
    paths = [tmp_path / "not" / "yet" / "there.png", tmp_path / "again.png"]
    for path in paths:
        plots.save(plots.plane(points, y, DIGITS, (0.5, 0.25), "Same"), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as image:
        assert image.format == "PNG"
        assert image.size == (7.6 * plots.DPI, 6 * plots.DPI)
        assert image.info.keys() == {"dpi"}


def test_a_long_title_is_broken_into_lines():
    figure = plots.curves("loss", np.ones(3), {}, title="Loss: " + "lr=0.2519 " * 20)
    lines = figure.axes[0].get_title().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= plots.TITLE_WIDTH


def test_a_long_class_name_is_cut() -> None:
    x, y, names = RNG.random((4, 6)), np.array([0, 1, 0, 1]), ["a", "b" * 9000]
    figure = plots.samples(x, y, (6,), names)
    assert tick_texts(figure) == ["a", "b" * 29 + "…"]
    assert legend_texts(plots.plane(x[:, :2], y, names, (0.6, 0.4), "t")) == ["a", "b" * 29 + "…"]
    assert_nothing_is_cut_off(figure)


def test_profiles_name_their_features() -> None:
    x, names = RNG.random((4, 30)), ["price in $", "w" * 40, *(f"column {i}" for i in range(28))]
    figure = plots.samples(x, np.array([0, 1, 0, 1]), (30,), ["a", "b"], names)
    lines = figure.axes[0].get_xlabel().splitlines()
    assert max(map(len, lines)) <= plots.NAMES_WIDTH
    shown = [r"price in \$", "w" * 29 + "…", *(f"column {i}" for i in range(18))]
    assert " ".join(lines) == f"from left to right: {', '.join(shown)} and 10 more"
    assert_nothing_is_cut_off(figure)
    assert not plots.samples(x, np.array([0, 1, 0, 1]), (30,), ["a", "b"]).axes[0].get_xlabel()
