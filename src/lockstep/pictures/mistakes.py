"""Pictures of a network's mistakes: which classes it confuses, and its most confident wrong predictions.

They are grids of text and images. Pillow draws them in a tenth of the time that matplotlib takes.
"""

import functools
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lockstep.pictures.plots import DPI, NAME_WIDTH, FloatArray, as_images, to_unit_range
from lockstep.results.predictions import Predictions

CLASSES_SHOWN = 20
"""The classes of a confusion matrix. More numbers can't be read."""

ROWS, COLUMNS = 3, 7
"""The grid of mistakes."""

CELL, IMAGE, BESIDE, MARGIN = 60, 150, 40, 24  # pixels, like the sizes of text; between images
WIDTH = 640  # at least
TITLE, TEXT, SMALL = 25, 21, 17  # matplotlib's 12, 10 and 8 points at DPI
INK, PALE = "#1b1b1b", (229, 229, 229)
ABOVE_IMAGE = 11  # characters of a class's name


def confusion(predictions: Predictions, title: str) -> Image.Image:
    """Draw the confusion matrix: how many instances of each class (row) were predicted as which (column).

    Mistakes are coloured by their number, right predictions are grey. Of more than CLASSES_SHOWN classes,
    show those with most mistakes.
    """
    counts_CxC = predictions.confusion()
    n_classes, n_wrong = len(counts_CxC), np.count_nonzero(~predictions.is_right_N)
    wrong_CxC = counts_CxC - np.diag(np.diag(counts_CxC))
    of_class = wrong_CxC.sum(axis=0) + wrong_CxC.sum(axis=1)
    shown = np.sort(np.argsort(-of_class, kind="stable")[:CLASSES_SHOWN])
    counts, wrong = (matrix[np.ix_(shown, shown)] for matrix in (counts_CxC, wrong_CxC))
    lines = [title, f"{n_wrong:,} of {len(predictions.label_N):,} test instances wrong"]
    if len(shown) < n_classes:
        lines.append(f"the {len(shown)} of {n_classes} classes with most mistakes")
    return _framed(_cells(counts, wrong), [_short(predictions.class_names[label]) for label in shown], lines)


def _cells(counts_SxS: NDArray[np.int64], wrong_SxS: NDArray[np.int64]) -> Image.Image:
    shares = wrong_SxS / max(1, wrong_SxS.max())
    colors = (255 * np.asarray(colormaps["Oranges"](shares))[:, :, :3]).astype(np.uint8)
    colors[np.diag_indices(len(colors))] = PALE
    side = len(colors) * CELL
    cells = Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(cells)
    for row, column in np.argwhere(counts_SxS):
        at = ((column + 0.5) * CELL, (row + 0.5) * CELL)
        color = "white" if shares[row, column] > 0.6 else INK
        count = int(counts_SxS[row, column])
        draw.text(at, str(count) if count < 1e5 else f"{count // 1000}k", color, _font(SMALL), anchor="mm")
    return cells


def _framed(cells: Image.Image, names: Sequence[str], lines: Sequence[str]) -> Image.Image:
    """Return cells with the classes' names beside and below them, below lines of text."""
    font = _font(TEXT)
    longest = round(max(map(font.getlength, names)))
    is_upright = longest > CELL - 8
    left, below = longest + TEXT + 2 * MARGIN, (longest if is_upright else TEXT) + TEXT + 2 * MARGIN
    heading = _heading(lines, left + cells.width + MARGIN)
    left += (heading.width - left - cells.width - MARGIN) // 2
    picture = Image.new("RGB", (heading.width, heading.height + cells.height + below), "white")
    picture.paste(heading)
    picture.paste(cells, (left, heading.height))
    draw = ImageDraw.Draw(picture)
    bottom = heading.height + cells.height
    for place, name in enumerate(names):
        at = (place + 0.5) * CELL
        draw.text((left - 10, heading.height + at), name, INK, font, anchor="rm")
        if is_upright:
            upright = _text(name, longest).rotate(90, expand=True)
            picture.paste(upright, (round(left + at - upright.width / 2), bottom + 10))
        else:
            draw.text((left + at, bottom + 10), name, INK, font, anchor="mt")
    middle = (left + cells.width / 2, heading.height + cells.height / 2)
    draw.text((middle[0], picture.height - MARGIN / 2), "predicted class", INK, font, anchor="mb")
    side = _text("class", round(font.getlength("class"))).rotate(90, expand=True)
    outermost = left - longest - TEXT - MARGIN - MARGIN // 2
    picture.paste(side, (outermost, round(middle[1] - side.height / 2)))
    return picture


def _text(text: str, width: int) -> Image.Image:
    """Return an image of right-aligned text."""
    image = Image.new("RGB", (width, round(1.3 * TEXT)), "white")
    ImageDraw.Draw(image).text((width, image.height / 2), text, INK, _font(TEXT), anchor="rm")
    return image


def most_confident(
    predictions: Predictions, x_NxF: FloatArray, feature_shape: tuple[int, ...], title: str
) -> Image.Image:
    """Draw the images of the wrong predictions with the highest probability, and what they were taken for.

    Args:
        x_NxF, feature_shape: the instances, and the shape of one, which is an image's.
    """
    chosen = predictions.mistakes()[: ROWS * COLUMNS]
    lines = [title, "class → predicted class, and its probability" if len(chosen) else "none on the test set"]
    heading = _heading(lines, COLUMNS * (IMAGE + BESIDE))
    above = 2 * SMALL + 12
    height = above + IMAGE + MARGIN
    n_rows = -(-len(chosen) // COLUMNS)
    picture = Image.new("RGB", (heading.width, heading.height + n_rows * height), "white")
    picture.paste(heading)
    draw = ImageDraw.Draw(picture)
    for place, index in enumerate(chosen):
        row, column = divmod(place, COLUMNS)
        left, top = BESIDE // 2 + column * (IMAGE + BESIDE), heading.height + row * height
        prediction = predictions.prediction_N[index]
        name, said = (
            _short(predictions.class_names[of_class], ABOVE_IMAGE)
            for of_class in (predictions.label_N[index], prediction)
        )
        said = f"→ {said} {predictions.probabilities_NxC[index, prediction]:.2f}"
        draw.text((left + IMAGE / 2, top), name, INK, _font(SMALL), anchor="ma")
        draw.text((left + IMAGE / 2, top + SMALL + 4), said, INK, _font(SMALL), anchor="ma")
        picture.paste(_image(x_NxF[index : index + 1], feature_shape), (left, top + above))
    return picture


def _image(x_1xF: FloatArray, shape: tuple[int, ...]) -> Image.Image:
    """Return an instance, its least value black and its greatest white, IMAGE pixels on its longer side."""
    images = as_images(x_1xF, shape)
    assert images is not None
    pixels_HxWxC = np.round(255 * np.atleast_3d(to_unit_range(images)[0])).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(pixels_HxWxC, (*pixels_HxWxC.shape[:2], 3)).copy())
    return ImageOps.pad(image, (IMAGE, IMAGE), Image.Resampling.NEAREST, color="white")


def _heading(lines: Sequence[str], width: int) -> Image.Image:
    """Return lines of text, the first as a title, centred and wrapped to a width or to WIDTH."""
    width = max(width, WIDTH)
    drawn = [
        (part, size)
        for size, line in zip([TITLE, *[TEXT] * len(lines)], lines, strict=False)
        for part in textwrap.wrap(line, int(width / (0.62 * size)))
    ]
    heading = Image.new("RGB", (width, 2 * MARGIN + sum(size + 8 for _, size in drawn)), "white")
    draw, top = ImageDraw.Draw(heading), float(MARGIN)
    for part, size in drawn:
        draw.text((width / 2, top), part, INK, _font(size), anchor="ma")
        top += size + 8
    return heading


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG. The same picture gives the same bytes."""
    picture.save(path, dpi=(DPI, DPI), compress_level=3)


def _short(name: str, most: int = NAME_WIDTH) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
