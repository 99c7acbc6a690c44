"""A run's history as an artifact, `history.parquet`, and back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from lockstep.config.errors import Refused
from lockstep.results.history import Evaluation, History

FILE = "history.parquet"


def write(history: History, folder: Path) -> None:
    """Write a history below a run's artifacts."""
    parquet.write_table(table(history), folder / FILE)


def table(history: History) -> pa.Table:
    """Return one row for each iteration's minibatch (split `train`) and each evaluation (`test`, `val`).

    Minibatches have no balanced accuracy and F1 score.
    """
    n, held_out = len(history.loss_T), history.evaluations
    columns = {
        "iteration": [*range(1, n + 1), *(e.iteration for e in held_out)],
        "split": ["train"] * n + [e.split for e in held_out],
        "loss": np.concatenate([history.loss_T, [e.loss for e in held_out]]),
        "accuracy": np.concatenate([history.accuracy_T, [e.accuracy for e in held_out]]),
        **{
            name: pa.array([None] * n + [getattr(e, name) for e in held_out], pa.float64())
            for name in ("balanced_accuracy", "f1_macro")
        },
    }
    return pa.table(columns)


def read(folder: Path) -> History:
    """Return the history in a run's artifacts; of its epochs nothing is known.

    Raises:
        Refused: if it can't be read.
    """
    try:
        rows = parquet.read_table(folder / FILE).to_pylist()
        train = [row for row in rows if row["split"] == "train"]
        loss_T, accuracy_T = (np.array([row[key] for row in train], float) for key in ("loss", "accuracy"))
        return History(loss_T, accuracy_T, [Evaluation(**row) for row in rows if row["split"] != "train"])
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise Refused([f"{FILE}: can't be read ({type(error).__name__})"]) from error
