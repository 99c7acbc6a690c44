"""The pictures of a run that has ended, as files."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from filelock import FileLock
from matplotlib.figure import Figure
from PIL.Image import Image

from lockstep.config.errors import Refused
from lockstep.config.schema import RunConfig
from lockstep.data.datasets import Dataset
from lockstep.data.description import is_image
from lockstep.pictures import mistakes, plots
from lockstep.pictures.representations import Plane, input_plane, names, planes_of
from lockstep.results import predictions_file, run_files
from lockstep.results.history import History
from lockstep.results.predictions import Predictions
from lockstep.training.loop import TrainedRun
from lockstep.training.networks import Network

CURVES = ("loss", "accuracy")
EXPLAINED = "explained_variance.json"
EXPLAINED_FILE = f"pca/{EXPLAINED}"
OF_MISTAKES = ("confusion", "mistakes")
CONFUSION, MISTAKES = (f"{picture}.png" for picture in OF_MISTAKES)


def drawings(
    run: TrainedRun, dataset: Dataset, name: str, folder: Path, shared: Path, predictions: Path | None
) -> dict[str, Callable[[], None]]:
    """Return the functions that draw a run's pictures, to be called in this order, by what they draw.

    They draw curves, samples, and, unless the run diverged, mistakes and the planes of feature spaces; of a
    table they also write which columns matter.

    Args:
        shared: folder of the pictures that are the same for all runs on a data set, see `draw_data`.
        predictions: the file of the run's predictions, None where it has none: then no mistakes are drawn.
    """
    diverged = run.history.diverged_at is not None

    def draw_hidden() -> None:
        if not diverged and (planes := planes_of(run.network, dataset)):
            _draw_planes(planes, dataset, name, folder / "pca")

    def draw_mistakes() -> None:
        if not diverged and predictions is not None:
            _draw_mistakes(predictions_file.read(predictions)["test"], dataset, name, folder)

    def measure_columns() -> None:
        if not diverged and dataset.description.table is not None:
            _write_columns(run.network, dataset, folder)

    return {
        "importance of columns": measure_columns,
        "curves": lambda: _draw_curves(run, name, folder / "curves"),
        "pictures of mistakes": draw_mistakes,
        "pictures of hidden layers": draw_hidden,
        "pictures of the data": lambda: _add_data_pictures(draw_data(dataset, shared), folder, diverged),
    }


def files(network: Network, dataset: Dataset) -> set[str]:
    """Return the files that `drawings` makes of a run that did not diverge, by their paths in its folder."""
    curves = {f"curves/{metric}.png" for metric in CURVES}
    of_mistakes = {CONFUSION, MISTAKES} if is_image(dataset.description.feature_shape) else {CONFUSION}
    planes = {f"pca/{space}.png" for space in ("input", *names(network, dataset))}
    return {"samples.png", EXPLAINED_FILE, *curves, *of_mistakes, *planes}


def draw_data(dataset: Dataset, shared: Path) -> Path:
    """Draw the pictures that all runs on a data set share, unless they exist: samples, the input plane."""
    drawn = shared / dataset.description.digest
    with FileLock(f"{drawn}.lock"):
        if not drawn.exists():
            _draw_data(dataset, drawn.with_suffix(".part")).rename(drawn)
    return drawn


def explained_variance(network: Network, dataset: Dataset) -> dict[str, list[float]]:
    """Return what `drawings` writes to EXPLAINED_FILE: each plane's shares of its space's variance."""
    planes = [input_plane(dataset.x_train), *planes_of(network, dataset)]
    return {plane.name: list(plane.explained_variance_ratio) for plane in planes}


def _write_columns(network: Network, dataset: Dataset, folder: Path) -> None:
    from lockstep.pictures import column_importance  # here, because it loads more of scikit-learn

    found = column_importance.importances(network, dataset)
    path = folder / run_files.COLUMNS
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _draw_data(dataset: Dataset, folder: Path) -> Path:
    plots.save(samples(dataset), folder / "samples.png")
    _draw_planes([input_plane(dataset.x_train)], dataset, dataset.description.name, folder / "pca")
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


def _draw_mistakes(predictions: Predictions, dataset: Dataset, name: str, folder: Path) -> None:
    mistakes.save(_confusion(predictions, name), folder / CONFUSION)
    if is_image(dataset.description.feature_shape):  # profiles of features would tell nobody why
        mistakes.save(_most_confident(predictions, dataset, name), folder / MISTAKES)


def _confusion(predictions: Predictions, name: str) -> Image:
    return mistakes.confusion(predictions, f"Confusion matrix: {name}")


def _most_confident(predictions: Predictions, dataset: Dataset, name: str) -> Image:
    shape, title = dataset.description.feature_shape, f"Most confident mistakes: {name}"
    return mistakes.most_confident(predictions, dataset.x_test.numpy(), shape, title)


def _draw_planes(planes: Iterable[Plane], dataset: Dataset, name: str, folder: Path) -> None:
    explained = {}
    for plane in planes:
        plots.save(_of_plane(plane, dataset, name), folder / f"{plane.name}.png")
        explained[plane.name] = list(plane.explained_variance_ratio)
    (folder / EXPLAINED).write_text(json.dumps(explained, indent=2) + "\n")


def _draw_curves(run: TrainedRun, name: str, folder: Path) -> None:
    for metric in CURVES:
        plots.save(curve(metric, run.config, run.history, name), folder / f"{metric}.png")


def curve(metric: str, config: RunConfig, history: History, name: str) -> Figure:
    """Return the figure of one of CURVES, of the run with this name."""
    evaluations = {
        split: (
            np.array([e.iteration for e in history.of(split)]),
            np.array([getattr(e, metric) for e in history.of(split)]),
        )
        for split in ("test", "val")
        if history.of(split)
    }
    train_T = history.loss_T if metric == "loss" else history.accuracy_T
    # Else a reader would wonder why the training loss is so far above the others.
    minimised = {
        "label smoothing": config.trainer.label_smoothing > 0,
        "class weights": config.trainer.class_weights is not None,
    }
    how = " and ".join(what for what, is_used in minimised.items() if is_used and metric == "loss")
    title = f"{metric.capitalize()}{f' (train: with {how})' if how else ''}: {name}"
    return plots.curves(metric, train_T, evaluations, title, history.restored_epoch)


def samples(dataset: Dataset) -> Figure:
    """Return the figure of some training instances of each class."""
    data = dataset.description
    x_NxF, y_N = dataset.x_train.numpy(), dataset.y_train.numpy()
    columns = () if data.table is None else data.table.columns
    names = [name for column in columns for name in column.feature_names]
    return plots.samples(x_NxF, y_N, data.feature_shape, data.class_names, names)


def of_mistakes(wanted: str, predictions: Predictions, dataset: Dataset, name: str) -> Figure:
    """Return the figure of one of OF_MISTAKES, of predictions on the test set.

    Raises:
        Refused: if mistakes are wanted of instances that are no images.
    """
    if wanted == "confusion":
        return plots.of_image(_confusion(predictions, name))
    if not is_image(dataset.description.feature_shape):
        raise Refused(
            [f"figure {wanted}: the instances are no images; confusion shows the mistakes by class"]
        )
    return plots.of_image(_most_confident(predictions, dataset, name))


def space(wanted: str, network: Network, dataset: Dataset, name: str) -> Figure:
    """Return the figure of one of a run's feature spaces, such as `input`, on two principal components."""
    if wanted == "input":
        return _of_plane(input_plane(dataset.x_train), dataset, dataset.description.name)
    [plane] = [plane for plane in planes_of(network, dataset) if plane.name == wanted]
    return _of_plane(plane, dataset, name)


def _of_plane(plane: Plane, dataset: Dataset, name: str) -> Figure:
    return plots.plane(
        plane.points_Nx2,
        dataset.y_train[: len(plane.points_Nx2)].numpy(),
        dataset.description.class_names,
        plane.explained_variance_ratio,
        f"{plane.title}: {name}",
    )
