"""A run that has ended → the files that are kept of it: config, history, weights, pictures."""

import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock

from lockstep import plots
from lockstep.config import RunConfig
from lockstep.data import Dataset
from lockstep.models import MultilayerPerceptron
from lockstep.representations import Plane, hidden_planes, input_plane
from lockstep.train import Evaluation, History, TrainedRun

EXPLAINED = "explained_variance.json"


def write_run(run: TrainedRun, folder: Path) -> None:
    """Write a run's artifacts that aren't pictures: config, history, weights.

    A run that diverged has no weights worth keeping.
    """
    write_history(run.config, run.history, folder)
    if run.history.diverged_at is None:
        (folder / "model").mkdir()
        # Contiguous copies: in the array weights are views with padding between the rows.
        weights = {
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in run.network.state_dict().items()
        }
        written = io.BytesIO()  # torch itself makes a RuntimeError of a full disk
        torch.save(weights, written)
        (folder / "model" / "state_dict.pt").write_bytes(written.getvalue())


def write_history(config: RunConfig, history: History, folder: Path) -> None:
    """Write what was asked for, and what came of it."""
    (folder / "config.yaml").write_text(config.to_yaml())
    history_table(history).to_parquet(folder / "history.parquet", index=False)


def draw_run(run: TrainedRun, dataset: Dataset, name: str, folder: Path, shared: Path) -> None:
    """Draw a run's pictures: samples, curves, and, unless it diverged, the planes of its feature spaces.

    Args:
        shared: where what is the same for all runs on a data set is drawn, once, by whoever needs it first.
    """
    _draw_curves(run.history, name, folder / "curves")
    if run.history.diverged_at is None and isinstance(run.network, MultilayerPerceptron):
        weight = next(run.network.parameters())
        x_NxF = dataset.x_train.to(weight.device, weight.dtype)
        _draw_planes(hidden_planes(run.network.representations(x_NxF)), dataset, name, folder / "pca")
    drawn = shared / dataset.digest
    with FileLock(f"{drawn}.lock"):
        if not drawn.exists():
            _draw_data(dataset, drawn.with_suffix(".part")).rename(drawn)
    _add_data_pictures(drawn, folder, run.history.diverged_at is not None)


def _draw_data(dataset: Dataset, folder: Path) -> Path:
    figure = plots.samples(
        dataset.x_train.numpy(), dataset.y_train.numpy(), dataset.feature_shape, dataset.class_names
    )
    plots.save(figure, folder / "samples.png")
    _draw_planes([input_plane(dataset.x_train)], dataset, dataset.name, folder / "pca")
    return folder


def _add_data_pictures(of_data: Path, folder: Path, diverged: bool) -> None:
    shutil.copy(of_data / "samples.png", folder)
    if diverged:
        return
    (folder / "pca").mkdir(exist_ok=True)
    shutil.copy(of_data / "pca" / "input.png", folder / "pca")
    explained = json.loads((of_data / "pca" / EXPLAINED).read_text())
    own = folder / "pca" / EXPLAINED
    if own.exists():
        explained |= json.loads(own.read_text())
    own.write_text(json.dumps(explained, indent=2) + "\n")


def _draw_planes(planes: Iterable[Plane], dataset: Dataset, name: str, folder: Path) -> None:
    explained = {}
    for plane in planes:
        figure = plots.plane(
            plane.points_Nx2,
            dataset.y_train.numpy(),
            dataset.class_names,
            plane.explained_variance_ratio,
            f"{plane.title}: {name}",
        )
        plots.save(figure, folder / f"{plane.name}.png")
        explained[plane.name] = list(plane.explained_variance_ratio)
    (folder / EXPLAINED).write_text(json.dumps(explained, indent=2) + "\n")


def history_table(history: History) -> pd.DataFrame:
    """One row for each iteration's minibatch (split `train`) and each evaluation (`test`, `val`)."""
    train = pd.DataFrame(
        {
            "iteration": range(1, len(history.loss_T) + 1),
            "split": "train",
            "loss": history.loss_T,
            "accuracy": history.accuracy_T,
        }
    )
    evaluations = pd.DataFrame(
        [(e.iteration, e.split, e.loss, e.accuracy) for e in history.evaluations], columns=train.columns
    )
    return pd.concat([train, evaluations], ignore_index=True) if len(evaluations) else train


def read_history(folder: Path) -> History:
    """The history that `write_run` wrote: all that can be drawn of it."""
    table = pd.read_parquet(folder / "history.parquet")
    train = table[table.split == "train"]
    held_out = table.loc[table.split != "train", ["iteration", "split", "loss", "accuracy"]]
    evaluations = [Evaluation(*values) for values in held_out.to_numpy().tolist()]
    return History(train.loss.to_numpy(), train.accuracy.to_numpy(), evaluations)


def _draw_curves(history: History, name: str, folder: Path) -> None:
    for metric, train_T in (("loss", history.loss_T), ("accuracy", history.accuracy_T)):
        evaluations = {
            split: (
                np.array([e.iteration for e in history.of(split)]),
                np.array([getattr(e, metric) for e in history.of(split)]),
            )
            for split in ("test", "val")
            if history.of(split)
        }
        figure = plots.curves(metric, train_T, evaluations, title=f"{metric.capitalize()}: {name}")
        plots.save(figure, folder / f"{metric}.png")
