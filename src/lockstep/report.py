"""A finished run → its artifacts; finished runs → a table, best first."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.table import Table

from lockstep import plots
from lockstep.config import RunConfig
from lockstep.data import Dataset
from lockstep.models import MultilayerPerceptron
from lockstep.plan import Plan
from lockstep.representations import Plane, hidden_planes, input_plane
from lockstep.train import History, Status, TrainedRun

EXPLAINED = "explained_variance.json"


class RunFailed(Exception):
    """A run of the command ended FAILED; the message says which and why."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: as in MLflow.
        run_id: the MLflow run.
        reason: why it did not finish.
    """

    config: RunConfig
    name: str
    run_id: str
    status: Status
    history: History
    reason: str = ""

    @property
    def objective(self) -> float | None:
        """The last accuracy on the validation set, or on the test set where there is none."""
        evaluations = self.history.of("val") or self.history.of("test")
        return evaluations[-1].accuracy if evaluations and self.status == "FINISHED" else None

    def result(self) -> float | None:
        """The objective, as a Hydra job returns it.

        Raises:
            RunFailed: if the run did not finish.
        """
        if self.status != "FINISHED":
            raise RunFailed(f"{self.name}: {self.reason}")
        return self.objective


def write_run(run: TrainedRun, folder: Path) -> None:
    """Write a run's artifacts that aren't pictures: config, history, weights.

    A run that diverged has no weights worth keeping.
    """
    (folder / "config.yaml").write_text(run.config.to_yaml())
    history_table(run.history).to_parquet(folder / "history.parquet", index=False)
    if run.history.diverged_at is None:
        (folder / "model").mkdir()
        # Contiguous copies: in the array weights are views with padding between the rows.
        weights = {
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in run.network.state_dict().items()
        }
        torch.save(weights, folder / "model" / "state_dict.pt")


def draw_run(run: TrainedRun, dataset: Dataset, name: str, folder: Path) -> None:
    """Draw a run's curves and the planes of its representations; a run that diverged has none of these."""
    _draw_curves(run.history, name, folder / "curves")
    if run.history.diverged_at is None and isinstance(run.network, MultilayerPerceptron):
        weight = next(run.network.parameters())
        x_NxF = dataset.x_train.to(weight.device, weight.dtype)
        _draw_planes(hidden_planes(run.network.representations(x_NxF)), dataset, name, folder / "pca")


def draw_data(dataset: Dataset, folder: Path) -> None:
    """Draw what is the same for all runs on a data set: samples, the plane of the input space."""
    figure = plots.samples(
        dataset.x_train.numpy(), dataset.y_train.numpy(), dataset.feature_shape, dataset.class_names
    )
    plots.save(figure, folder / "samples.png")
    _draw_planes([input_plane(dataset.x_train)], dataset, dataset.name, folder / "pca")


def add_data_pictures(of_data: Path, folder: Path, diverged: bool) -> None:
    """Copy what `draw_data` drew to a run's own pictures; one that diverged shows no planes."""
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


def leaderboard(outcomes: Sequence[Outcome]) -> Table:
    """Finished runs best first, by validation accuracy where there is a validation set, then the others."""
    ranked = sorted(outcomes, key=lambda outcome: (outcome.objective is None, -(outcome.objective or 0)))
    validated = any(outcome.history.of("val") for outcome in outcomes)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    headings = [*(["val accuracy"] if validated else []), "test accuracy", "best", "test loss", "training"]
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("status")
    for outcome in ranked:
        tests, vals = outcome.history.of("test"), outcome.history.of("val")
        cells = [f"{vals[-1].accuracy:.4f}" if vals else ""] if validated else []
        if tests:
            best = max(evaluation.accuracy for evaluation in tests)
            cells += [f"{tests[-1].accuracy:.4f}", f"{best:.4f}", f"{tests[-1].loss:.4f}"]
        else:
            cells += ["", "", ""]
        status = outcome.status + (f": {outcome.reason}" if outcome.reason else "")
        table.add_row(outcome.name, *cells, f"{outcome.history.seconds:.1f} s", status)
    return table


def plan_table(planned: Plan, names: Sequence[str], flops: float) -> Table:
    """What a dry run shows: each array's runs, the time they take and the bytes of their state.

    Args:
        flops: FLOP/s of a large GEMM on one thread of this machine.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("array")
    table.add_column("runs", overflow="fold")
    for heading in ("training", "memory"):
        table.add_column(heading, justify="right")
    for index, array in enumerate(planned.arrays, start=1):
        runs = "\n".join(names[k] for k in array.jobs)
        table.add_row(str(index), runs, f"{array.cost / flops:.1f} s", f"{array.bytes / 2**20:.1f} MiB")
    return table


def plan_summary(planned: Plan, flops: float) -> str:
    """The plan's whole in a sentence; `flops` as for `plan_table`."""
    n_runs = sum(len(array.jobs) for array in planned.arrays)
    numbers = ((n_runs, "run"), (len(planned.arrays), "array"), (planned.n_workers, "worker"))
    runs, arrays, workers = (f"{n:,} {what}{'s' * (n != 1)}" for n, what in numbers)
    return (
        f"{runs} in {arrays} on {workers}: about {planned.cost / flops:.0f} s of training, and"
        f" {planned.bytes / 2**20:.1f} MiB at once for weights, gradients and optimizers, beside the data."
    )


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
