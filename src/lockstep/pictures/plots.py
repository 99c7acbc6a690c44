"""Figures of a run, from arrays.

Suffixes name the axes of an array: N instances, F features, T training iterations.
Figures are built without pyplot, so without global state: several threads can draw at once.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import cm, colormaps, lines, patheffects, ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lockstep.data.description import has_channels_last, is_image

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

DPI = 150
TITLE_WIDTH = 70  # characters; fits a figure's width
NAME_WIDTH = 30  # characters of a class's name
TURNS = 6  # how often the classes take turns when instances are drawn
SAMPLES_PER_CLASS = CLASSES_SHOWN = 10
FEATURES_NAMED = 20
NAMES_WIDTH = 90  # characters of a line of small text below the samples
# Okabe and Ito's palette for colour-blind readers (jfly.uni-koeln.de/color).
TRAIN_COLOR = "#0072B2"
EVALUATION_STYLES = {"test": ("#D55E00", "o"), "val": ("#009E73", "s")}


def samples(
    x_NxF: FloatArray,
    y_N: IntArray,
    feature_shape: tuple[int, ...],
    class_names: Sequence[str],
    feature_names: Sequence[str] = (),
) -> Figure:
    """Draw the first 10 instances of each of the first 10 classes, a row per class.

    Draw images if `feature_shape` is an image's (see `is_image`), else profiles over the features, and below
    them the features' names, if they have names. All share one scale, from the least to the greatest value
    shown."""
    rows = min(len(class_names), CLASSES_SHOWN)
    chosen = [np.flatnonzero(y_N == label)[:SAMPLES_PER_CLASS] for label in range(rows)]
    cells = [(row, column) for row, indices in enumerate(chosen) for column in range(len(indices))]
    x_shown = x_NxF[np.concatenate(chosen)]
    images = as_images(x_shown, feature_shape)
    shown = to_unit_range(x_shown if images is None else images)
    height, width = (2, 3) if images is None else images.shape[1:3]
    # Inches: an instance's longer side is 0.6; neither side is less than 0.25, so that the rows' names fit.
    cell_height, cell_width = np.maximum(0.6 * np.array([height, width]) / max(height, width), 0.25)
    names = list(map(_label, class_names[:rows]))
    names_width = 0.4 + 0.08 * max(map(len, names))
    below = _named(feature_names)
    height = rows * cell_height + 0.6 + 0.17 * len(below)
    figure, axes = _figure(SAMPLES_PER_CLASS * cell_width + names_width, height)
    for index, (row, column) in enumerate(cells):
        left, right, top, bottom = column + 0.04, column + 0.96, row + 0.04, row + 0.96
        if images is None:
            profile = np.resize(shown[index], max(2, shown.shape[1]))  # a line needs two points
            axes.plot(np.linspace(left, right, len(profile)), bottom - 0.92 * profile, TRAIN_COLOR, lw=0.9)
        else:
            axes.imshow(shown[index], cmap="gray", vmin=0, vmax=1, extent=(left, right, bottom, top))
    axes.set(xlim=(0, SAMPLES_PER_CLASS), ylim=(rows, 0), xticks=[], aspect=cell_height / cell_width)
    axes.set_yticks(np.arange(rows) + 0.5, names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    part = "" if rows == len(class_names) else f" (first {rows} of {len(class_names)})"
    axes.set_title(f"Sample instances of each class{part}")
    axes.set_xlabel("\n".join(below), fontsize="small")
    return figure


def _named(feature_names: Sequence[str]) -> list[str]:
    """Return lines that name the features of a profile."""
    shown = [_label(name) for name in feature_names[:FEATURES_NAMED]]
    more = len(feature_names) - len(shown)
    text = f"from left to right: {', '.join(shown)}{f' and {more:,} more' if more else ''}"
    return textwrap.wrap(text, NAMES_WIDTH) if shown else []


def curves(
    metric: str, train_T: FloatArray, evaluations: Mapping[str, tuple[IntArray, FloatArray]], title: str,
    restored_epoch: int | None = None,
) -> Figure:  # fmt: skip
    """Draw a metric ("loss", "accuracy") over training iterations 1 … T: each minibatch's, and smoothed.

    `evaluations`: (iterations done, values) by split ("test", "val"), one for each epoch. Values not finite
    leave gaps. An epoch whose weights were restored is marked, and the legend has its values.
    An accuracy's axis shows the second half of training in full: the first iterations would flatten it."""
    train = np.asarray(train_T, dtype=np.float64)
    smoothed = smooth(train)
    iterations = np.arange(1, len(train) + 1)
    figure, axes = _figure(9, 4.8)
    axes.plot(iterations, train, TRAIN_COLOR, alpha=0.35, lw=0.5, label="train, each minibatch")
    axes.plot(iterations, smoothed, TRAIN_COLOR, lw=0.9, label=f"train, smoothed: {_last(smoothed)}")
    for split, (steps, values) in evaluations.items():
        color, marker = EVALUATION_STYLES[split]
        label = f"{split}: {_last(values)}"
        if restored_epoch is not None:
            label = f"{split}, epoch {restored_epoch}: {_last(values[:restored_epoch])}"
        axes.plot(steps, values, color, marker=marker, lw=1, mec="white", mew=0.6, label=label)
    axes.set(xlabel="iteration", ylabel="cross-entropy loss" if metric == "loss" else metric)
    axes.set_title(_heading(title))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlim(-0.02 * len(train), 1.02 * len(train))
    axes.grid(color="0.9", lw=0.6)
    if metric == "accuracy":
        axes.set_ylim(_later_range([train, *(values for _, values in evaluations.values())]))
    _mark_divergence(axes, train)
    if restored_epoch is not None:
        [end, *_] = [steps[restored_epoch - 1] for steps, _ in evaluations.values()]
        axes.axvline(end, color="0.3", lw=0.9, ls="--", zorder=1, label=f"epoch {restored_epoch} restored")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, borderaxespad=0)
    return figure


def smooth(values_T: FloatArray, window: int = 21, order: int = 3) -> NDArray[np.float64]:
    """Return values smoothed by a Savitzky-Golay filter, which preserves polynomials up to `order`.

    Each stretch of finite values is smoothed separately. A short stretch gets the longest odd window that
    fits, and stays as it is if that isn't longer than `order`. Values that aren't finite stay as they are.
    """
    from scipy.signal import savgol_filter  # here, because loading it takes 0.9 s

    smoothed = np.array(values_T, dtype=np.float64)
    edges = np.flatnonzero(np.diff(np.isfinite(smoothed), prepend=False, append=False))
    for start, stop in edges.reshape(-1, 2):
        length = min(window, stop - start)
        fitting = length - 1 + length % 2
        if fitting > order:
            with np.errstate(over="ignore"):  # squared residuals of a diverged run's last values overflow
                smoothed[start:stop] = savgol_filter(smoothed[start:stop], fitting, order)
    return smoothed


def plane(
    points_Nx2: FloatArray, y_N: IntArray, class_names: Sequence[str],
    explained_variance_ratio_2: Sequence[float], title: str,
) -> Figure:  # fmt: skip
    """Draw instances on their first two principal components, coloured by class."""
    # A fixed shuffle: in data sorted by class, the last class would cover the others.
    shown = np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(points_Nx2).all(axis=1)))
    points, labels = points_Nx2[shown].astype(np.float64), y_N[shown]
    colors = _class_colors(len(class_names))
    figure, axes = _figure(7.6, 6)
    # Marker area in square points: small enough to show the density of 60,000 instances, larger for few.
    area = float(np.clip(30_000 / max(len(shown), 1), 2.5, 16))
    left_out = len(points_Nx2) - len(shown)
    note = f"\n{left_out} of {len(points_Nx2)} instances are not finite, so not shown" if left_out else ""
    percent_1, percent_2 = (f"{100 * ratio:.1f} % of variance" for ratio in explained_variance_ratio_2)
    axes.set(xlabel=f"PC 1 ({percent_1})", ylabel=f"PC 2 ({percent_2})", title=_heading(title) + note)
    names = list(map(_label, class_names))
    if len(names) > 20:
        axes.scatter(points[:, 0], points[:, 1], c=colors[labels], s=area, alpha=0.6, linewidths=0)
        scale = cm.ScalarMappable(Normalize(0, len(names) - 1), "viridis")
        ticks = [round(tick) for tick in np.linspace(0, len(names) - 1, 11)]
        figure.colorbar(scale, ax=axes, label="class").set_ticks(ticks, labels=[names[i] for i in ticks])
    else:
        _draw_dots(axes, points, labels, colors, area**0.5)
        dots = [lines.Line2D([], [], ls="", marker="o", ms=8, color=color) for color in colors]
        axes.legend(dots, names, title="class", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        _name_medians(axes, points, labels, names)
    return figure


def of_image(image: Image.Image) -> Figure:
    """Return a figure that is an image, pixel for pixel at DPI."""
    figure = Figure(figsize=(image.width / DPI, image.height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.asarray(image))
    axes.set_axis_off()
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG. The same figure gives the same bytes: the file names no software version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas: Any = figure.canvas
    # Figure.savefig would lay out and traverse the figure twice.
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)
    figure.set_layout_engine("none")
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if not any(axes.images for axes in figure.axes):
        # A palette is enough for figures without images: a quarter of the size, in a third of the time.
        image = image.quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(path, dpi=(DPI, DPI), compress_level=3)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:  # inches
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.07)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _heading(text: str) -> str:
    return textwrap.fill(_plain(text), TITLE_WIDTH)  # the names of a search's runs are long


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # two dollar signs would enclose TeX mathematics


def _label(name: str) -> str:
    return _plain(name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…")  # users' names


def _last(values: FloatArray) -> str:
    return f"{values[-1]:.4g}" if len(values) else "none"


def _later_range(curves: Sequence[FloatArray]) -> tuple[float, float]:
    """Return the ends of an axis for the second half of some accuracies, but for the lowest 0.5 % of each."""
    later = [values[np.isfinite(values)][-((len(values) + 1) // 2) :] for values in curves]
    ends = [(np.quantile(values, 0.005), values.max()) for values in later if len(values)]
    low, high = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (0.0, 1.0)
    margin = max(0.05 * (high - low), 0.005)
    return float(max(0.0, low) - margin), float(min(1.0, high) + margin)


def _mark_divergence(axes: Axes, train_T: NDArray[np.float64]) -> None:
    finite = np.isfinite(train_T)
    if not finite.all():
        first = int(np.argmin(finite)) + 1
        axes.axvline(first, color="0.3", ls=":", label=f"not finite at iteration {first}")
    start = train_T[finite][:1].max(initial=1.0)
    if train_T[finite].max(initial=0.0) > 10 * start:
        # A linear axis would show only the peak: linear up to the first loss, logarithmic beyond.
        axes.set_yscale("symlog", linthresh=start, linscale=2)
        axes.set_ylim(bottom=0)  # a loss is positive, but a smoothed peak undershoots


def to_unit_range(values: FloatArray) -> NDArray[np.float64]:
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    filled = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return (filled - low) / (high - low if high > low else 1.0)


def as_images(x_NxF: FloatArray, shape: tuple[int, ...]) -> FloatArray | None:
    """Return N x H x W (x 1 or 3 channels), or None where the features are no image.

    A fourth channel is left out: it may be opacity, but also infrared.
    """
    if not is_image(shape):
        return None
    images = x_NxF.reshape(-1, *shape)
    if len(shape) == 2:
        return images
    return (images if has_channels_last(shape) else np.moveaxis(images, 1, -1))[..., :3]


def _draw_dots(
    axes: Axes, points_Nx2: FloatArray, y_N: IntArray, colors: NDArray[np.float64], diameter: float
) -> None:
    """Draw like Axes.scatter, but faster: Agg copies markers of one colour instead of drawing each.
    Classes take turns, so that none covers the others."""
    for turn in np.array_split(np.arange(len(y_N)), TURNS):
        points, labels = points_Nx2[turn], y_N[turn]
        for label in np.unique(labels):
            x, y = points[labels == label].T
            style = {"ls": "", "marker": "o", "ms": diameter, "mew": 0, "color": colors[label], "alpha": 0.6}
            axes.add_artist(lines.Line2D(x, y, **style))
    axes.update_datalim(points_Nx2)
    axes.autoscale_view()


def _class_colors(classes: int) -> NDArray[np.float64]:
    if classes > 20:  # too many for a palette: a perceptual scale
        return np.asarray(colormaps["viridis"](np.linspace(0, 1, classes)))
    return np.asarray(colormaps["tab10" if classes <= 10 else "tab20"](np.arange(classes)))


def _name_medians(axes: Axes, points_Nx2: FloatArray, y_N: IntArray, names: Sequence[str]) -> None:
    """Name classes at their medians, beside the legend, unless names would overlap."""
    medians = [(names[label], np.median(points_Nx2[y_N == label], axis=0)) for label in np.unique(y_N)]
    places = [
        (*axes.transData.transform(median) / axes.figure.dpi, 0.1 * len(name))  # inches: across, up, width
        for name, median in medians
    ]
    if any(
        abs(a - b) <= (v + w) / 2 and abs(y - z) <= 0.12 for (a, y, v), (b, z, w) in combinations(places, 2)
    ):
        return
    for name, (x, y) in medians:
        halo = patheffects.withStroke(linewidth=3, foreground="white")
        axes.text(x, y, name, ha="center", va="center", weight="bold", path_effects=[halo])
