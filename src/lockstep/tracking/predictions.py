"""Predictions of recorded runs, read back, and the ensemble that they make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lockstep.config.errors import Refused
from lockstep.recovery.temporary import temporary_folder
from lockstep.results import ensemble, predictions_file
from lockstep.results.history import HeldOut
from lockstep.results.predictions import Predictions
from lockstep.results.run_result import RunResult
from lockstep.tracking.store import Store
from lockstep.tracking.sweeps import Sweep

OfRun = Callable[[str], Mapping[HeldOut, Predictions]]
"""Returns the predictions of a run, by its id; empty where it has none."""

VAL = "val/accuracy"


def read(store: Store, run_id: str) -> Mapping[HeldOut, Predictions]:
    """Return a run's predictions, empty where none were recorded.

    Raises:
        Refused: if they can't be read.
    """
    if predictions_file.FILE not in {entry.path for entry in store.client.list_artifacts(run_id)}:
        return {}
    with temporary_folder() as folder:
        path = store.client.download_artifacts(run_id, predictions_file.FILE, str(folder))
        return predictions_file.read(Path(path))


@dataclass(frozen=True)
class Chosen:
    """An ensemble of a sweep's runs.

    Attributes:
        members: its runs, the one with the highest weight first.
        weights: of the members' probabilities; they add up to 1.
        best: the run with the highest validation accuracy.
        alone: the predictions of `best`. together: those of the ensemble. Both by split.
    """

    members: tuple[RunResult, ...]
    weights: tuple[float, ...]
    best: RunResult
    alone: Mapping[HeldOut, Predictions]
    together: Mapping[HeldOut, Predictions]


def choose(sweep: Sweep, predictions_of: OfRun) -> Chosen:
    """Choose an ensemble of a sweep's runs by their predictions on the validation set alone.

    Candidates are the runs with the highest validation accuracy.

    Raises:
        Refused: if there is no validation split, or there are no predictions to choose by.
    """
    runs = [run for row in sweep.rows for run in row.runs if VAL in run.metrics]
    if not runs:
        raise Refused(["an ensemble is chosen on a validation split: train with data.val_size=10000, say"])
    runs.sort(key=lambda run: -run.metrics[VAL])
    alike = [run for run in runs if _data_of(run) == _data_of(runs[0])]
    candidates = alike[: ensemble.CANDIDATES]
    found = {str(run.run_id): predictions_of(str(run.run_id)) for run in candidates}
    known = [run for run in candidates if "val" in found[str(run.run_id)]]
    if not known:
        raise Refused(["no predictions are recorded: an earlier version trained the runs, or pictures=none"])
    of_known = [found[str(run.run_id)] for run in known]
    counts = ensemble.select([of_run["val"] for of_run in of_known])
    order = [place for place in np.argsort([-count for count in counts], kind="stable") if counts[place]]
    weights = tuple(counts[place] / sum(counts) for place in order)
    together = {
        split: ensemble.average([of_known[place][split] for place in order], weights) for split in of_known[0]
    }
    return Chosen(tuple(known[place] for place in order), weights, known[0], of_known[0], together)


def _data_of(run: RunResult) -> tuple[str, str | None]:
    """Return what runs must share to predict the same instances from the same features."""
    return run.data_digest, run.params.get("data.val_size")
