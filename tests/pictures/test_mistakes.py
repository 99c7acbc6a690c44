"""Pictures of mistakes: what they show, looked up in their pixels."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lockstep.pictures import mistakes
from lockstep.results.predictions import Predictions


def predicted(label, prediction, names, confidence=None):
    label_N, prediction_N = np.array(label), np.array(prediction)
    probabilities_NxC = np.zeros((len(label), len(names)), np.float32)
    probabilities_NxC[np.arange(len(label)), prediction_N] = 1 if confidence is None else confidence
    return Predictions(label_N, prediction_N, probabilities_NxC, tuple(names))


@pytest.fixture
def texts(monkeypatch):
    """Every text that is drawn."""
    found, draw = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, at, text, *a, **k: found.append(text) or draw(self, at, text, *a, **k),
    )
    return found


def test_confusion_counts_classes_by_row_and_colours_the_mistakes(texts):
    label, prediction = [0] * 5 + [1] * 7, [0, 0, 0, 1, 1] + [1] * 6 + [0]
    picture = mistakes.confusion(predicted(label, prediction, "ab"), "a run")
    assert texts[:4] == ["3", "2", "1", "6"]  # row by row
    assert {"a run", "3 of 12 test instances wrong", "a", "b", "class", "predicted class"} <= set(texts)
    colors = np.asarray(picture).reshape(-1, 3)
    found, counts = np.unique(colors, axis=0, return_counts=True)
    largest = found[np.argsort(-counts)][1:4]  # after white: two grey cells, two of their own colours
    assert tuple(largest[0]) == mistakes.PALE
    assert largest[1:].mean(axis=1).max() > 1.3 * largest[1:].mean(axis=1).min()


def test_of_many_classes_the_most_mistaken_are_shown_with_their_names(texts):
    names = [f"{index} {'x' * 30}" for index in range(30)]  # 1 to 10 make no mistake
    label = list(range(30)) + [29] * 3
    prediction = [(index + 1) % 30 if index >= 11 else index for index in range(30)] + [12] * 3
    mistakes.confusion(predicted(label, prediction, names), "a run")
    assert "the 20 of 30 classes with most mistakes" in texts
    shown = [text for text in texts if "xxx" in text]
    assert [text.split()[0] for text in shown[::2]] == [str(index) for index in (0, *range(11, 30))]
    assert shown[::2] == shown[1::2]  # by row and by column
    assert all(len(text) == 30 and text.endswith("…") for text in shown)


def test_without_mistakes_both_pictures_say_so(texts):
    right = predicted([0, 1], [0, 1], "ab")
    mistakes.confusion(right, "a run")
    mistakes.most_confident(right, np.zeros((2, 4)), (2, 2), "a run")
    assert {"0 of 2 test instances wrong", "none on the test set"} <= set(texts)


def test_the_most_confident_mistakes_come_first_each_with_its_image(texts):
    wrong = predicted([0, 0, 1, 1], [1, 0, 0, 0], ["left", "right"], [0.6, 1, 0.9, 0.7])
    x_NxF = np.tile([0.0, 1.0, 1.0, 0.0], (4, 1))
    x_NxF[2] = [0, 1, 0, 1]  # the first to be shown
    picture = np.asarray(mistakes.most_confident(wrong, x_NxF, (2, 2), "a run"))
    assert texts[2:] == ["right", "→ left 0.90", "right", "→ left 0.70", "left", "→ right 0.60"]
    half, left = mistakes.IMAGE // 2, mistakes.BESIDE // 2
    image = picture[-mistakes.MARGIN - mistakes.IMAGE : -mistakes.MARGIN, left : left + mistakes.IMAGE]
    assert image[:, :half].max() == 0
    assert image[:, half:].min() == 255


@pytest.mark.parametrize(
    "shape", [(3, 4, 5), (8, 10, 3), (1, 4, 5), (8, 10, 1), (4, 5), (4, 4, 5), (8, 10, 4)]
)
def test_images_of_any_shape_are_drawn_upright(shape):
    x_NxF = np.linspace(0, 1, math.prod(shape))[None]
    image = np.asarray(mistakes._image(x_NxF, shape))
    assert image.shape == (mistakes.IMAGE, mistakes.IMAGE, 3)
    assert (image[:14] == 255).all() and (image[-14:] == 255).all()  # 4 x 5: a margin above and below
    assert (image[20:-20] == 255).all(axis=2).mean() < 0.1  # but the greatest value, which is white


def test_the_same_picture_has_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        mistakes.save(mistakes.confusion(predicted([0, 1], [1, 1], "ab"), "a run"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width >= mistakes.WIDTH
