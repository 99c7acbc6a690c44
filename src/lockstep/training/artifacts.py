"""A run that has ended → the files that are kept of it, and back: config, history, weights."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

from lockstep.config.schema import RunConfig
from lockstep.results.history import Evaluation, History
from lockstep.training.loop import TrainedRun


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
    parquet.write_table(history_table(history), folder / "history.parquet")


def history_table(history: History) -> pa.Table:
    """One row for each iteration's minibatch (split `train`) and each evaluation (`test`, `val`)."""
    n, held_out = len(history.loss_T), history.evaluations
    columns = {
        "iteration": [*range(1, n + 1), *(e.iteration for e in held_out)],
        "split": ["train"] * n + [e.split for e in held_out],
        "loss": np.concatenate([history.loss_T, [e.loss for e in held_out]]),
        "accuracy": np.concatenate([history.accuracy_T, [e.accuracy for e in held_out]]),
    }
    return pa.table(columns)


def read_history(folder: Path) -> History:
    """The history that `write_run` wrote: all that can be drawn of it."""
    rows = parquet.read_table(folder / "history.parquet").to_pylist()
    train = [row for row in rows if row["split"] == "train"]
    loss_T, accuracy_T = (np.array([row[key] for row in train]) for key in ("loss", "accuracy"))
    return History(loss_T, accuracy_T, [Evaluation(**row) for row in rows if row["split"] != "train"])
