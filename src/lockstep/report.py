"""A finished run → its artifacts; finished runs → a table, best first."""

import json
from collections.abc import Sequence
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
from lockstep.representations import planes
from lockstep.tracking import Status
from lockstep.train import History, TrainedRun


class RunFailed(Exception):
    """A run of the command ended FAILED; the message says which and why."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: as in MLflow.
        run_id: the MLflow run.
        history: None where nothing was trained.
        seconds: of training.
        reason: why it did not finish.
    """

    config: RunConfig
    name: str
    run_id: str
    status: Status
    history: History
    seconds: float
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


def write_artifacts(run: TrainedRun, dataset: Dataset, name: str, folder: Path) -> None:
    """Write a run's artifacts into `folder`: config, history, pictures, weights.

    A run that diverged has no weights worth keeping, hence no representations either.
    """
    (folder / "config.yaml").write_text(run.config.to_yaml())
    history_table(run.history).to_parquet(folder / "history.parquet", index=False)
    _write_curves(run.history, name, folder / "curves")

    x_NxF, y_N = dataset.x_train.numpy(), dataset.y_train.numpy()
    figure = plots.samples(x_NxF, y_N, dataset.feature_shape, dataset.class_names)
    plots.save(figure, folder / "samples.png")
    if run.diverged_at is not None:
        return
    (folder / "model").mkdir()
    # Contiguous copies: in the array nn.Linear's weights are transposed views.
    weights = {
        name: tensor.cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in run.module.state_dict().items()
    }
    torch.save(weights, folder / "model" / "state_dict.pt")
    weight = next(run.module.parameters())
    x = dataset.x_train.to(weight.device, weight.dtype)
    hidden = run.module.representations(x) if isinstance(run.module, MultilayerPerceptron) else []
    explained = {}
    for plane in planes(x, hidden):
        figure = plots.plane(
            plane.points_Nx2,
            y_N,
            dataset.class_names,
            plane.explained_variance_ratio,
            f"{plane.title}: {name}",
        )
        plots.save(figure, folder / "pca" / f"{plane.name}.png")
        explained[plane.name] = list(plane.explained_variance_ratio)
    (folder / "pca" / "explained_variance.json").write_text(json.dumps(explained, indent=2) + "\n")


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
        table.add_row(outcome.name, *cells, f"{outcome.seconds:.1f} s", status)
    return table


def _write_curves(history: History, name: str, folder: Path) -> None:
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
