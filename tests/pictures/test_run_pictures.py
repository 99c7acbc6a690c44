"""The pictures of a run; how each looks, test_plots.py asks."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.configs import LOGREG, run_config
from helpers.tables import birds, made

from lockstep.data.datasets import Dataset, load
from lockstep.pictures import run_pictures
from lockstep.results import predictions_file
from lockstep.results.history import History
from lockstep.training.loop import train
from lockstep.training.prediction import predict


def draw(run, dataset, folder, shared):
    for step in run_pictures.drawings(run, dataset, "a name", folder, shared, None).values():
        step()


def test_what_runs_have_in_common_is_drawn_once_however_many_draw_at_once(tmp_path, monkeypatch):
    config = run_config(LOGREG, epochs=1)
    dataset = load(config.data)
    [run] = train([config], dataset)
    drawn, samples = [], run_pictures.plots.samples
    monkeypatch.setattr(run_pictures.plots, "samples", lambda *of: drawn.append(1) or samples(*of))
    folders = [tmp_path / str(k) for k in range(3)]
    for folder in folders:
        folder.mkdir()
    threads = [threading.Thread(target=draw, args=(run, dataset, folder, tmp_path)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == [1]
    first, *others = [(folder / "samples.png").read_bytes() for folder in folders]
    assert others == [first, first]
    assert all((folder / "pca" / "input.png").is_file() for folder in folders)


def test_a_picture_that_broke_half_way_is_drawn_again_by_the_next(tmp_path, monkeypatch):
    config = run_config(LOGREG, epochs=1)
    dataset = load(config.data)
    [run] = train([config], dataset)
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    with monkeypatch.context() as broken:
        broken.setattr(run_pictures, "input_plane", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            draw(run, dataset, tmp_path / "0", tmp_path)
    draw(run, dataset, tmp_path / "1", tmp_path)
    assert (tmp_path / "1" / "pca" / "input.png").is_file()


@pytest.mark.parametrize(
    ("metric", "smoothing", "title"),
    [
        ("loss", 0.0, "Loss: a name"),
        ("loss", 0.1, "Loss (train: with label smoothing): a name"),
        ("accuracy", 0.1, "Accuracy: a name"),
    ],
)
def test_a_training_loss_with_label_smoothing_says_so(metric, smoothing, title):
    history = History(loss_T=np.ones(3), accuracy_T=np.ones(3))
    figure = run_pictures.curve(metric, run_config(label_smoothing=smoothing), history, "a name")
    assert figure.axes[0].get_title() == title


@pytest.mark.parametrize(
    ("shape", "drawn"), [((8, 8), {"confusion.png", "mistakes.png"}), ((64,), {"confusion.png"})]
)
def test_mistakes_are_shown_where_instances_are_images(tmp_path, shape, drawn):
    config = run_config(LOGREG, epochs=1)
    dataset = load(config.data)
    dataset = replace(dataset, description=replace(dataset.description, feature_shape=shape))
    [run] = train([config], dataset)
    predictions_file.write(predict(run, dataset), tmp_path)
    steps = run_pictures.drawings(
        run, dataset, "a name", tmp_path, tmp_path, tmp_path / predictions_file.FILE
    )
    steps["pictures of mistakes"]()
    assert {path.name for path in tmp_path.glob("*.png")} == drawn
    assert drawn == run_pictures.files(run.network, dataset) & {"confusion.png", "mistakes.png"}


def test_samples_of_a_table_name_its_features(tmp_path):
    prepared = made(tmp_path / "t.csv", birds())
    dataset = Dataset(prepared.description, *map(torch.from_numpy, prepared.arrays))
    named = run_pictures.samples(dataset).axes[0].get_xlabel()
    of_categories = "island=Biscoe, island=Dream, island=Torgersen, flipper, is_banded=false, is_banded=true"
    assert " ".join(named.split()) == f"from left to right: mass, {of_categories}"
