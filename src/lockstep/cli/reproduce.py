"""`python -m lockstep reproduce <run id>`: train a run again from what the store has of it, and compare."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lockstep.config.errors import Refused
from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.results.history import History
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import OVERRIDES, PRUNED_AT, Store
from lockstep.training import artifacts
from lockstep.training.loop import train


@dataclass(frozen=True)
class Comparison:
    """What came out another time.

    Attributes:
        name: the run's.
        n_values: losses and accuracies that were compared; of every iteration and every evaluation.
        differences: in words; empty where every bit is the same.
    """

    name: str
    n_values: int
    differences: tuple[str, ...]


def reproduce(store: Store, run_id: str) -> Comparison:
    """Train a run again, alone, from its config in the store, and compare every number with the recorded.

    Raises:
        MlflowException: if there is no such run.
        Refused: if it isn't a training run that came to its end, or its data can't be had.
    """
    run = store.client.get_run(run_id)
    tags = run.data.tags
    if tags.get("lockstep.kind") != "run":
        raise Refused([f"{run_id}: not a training run; a sweep's runs are reproduced one by one"])
    if run.info.status != "FINISHED":
        raise Refused([f"{run_id}: {run.info.status}; only a run that is FINISHED can be compared"])
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        stored = Recorded(store.client, run_id).download(Path(folder))
        if not (stored / "history.parquet").exists():
            raise Refused([f"{run_id}: the store has no history.parquet of it"])
        config = RunConfig.from_yaml(stored / "config.yaml", store.uri)
        dataset = datasets.load(config.data)
        recorded = artifacts.read_history(stored)
        weights_file = stored / "model" / "state_dict.pt"
        weights = torch.load(weights_file, weights_only=True) if weights_file.exists() else {}
    differences = []
    if config.run_key(dataset.digest) != tags.get("lockstep.run_key"):
        differences.append("the data, or how Lockstep computes, is not the same as when it was recorded")
    pruned_at = tags.get(PRUNED_AT)
    [again] = train([config], dataset, pause_at=None if pruned_at is None else int(pruned_at))
    differences += _differences(recorded, again.history)
    for name, tensor in again.network.state_dict().items():
        if name in weights and not torch.equal(weights[name], tensor.cpu()):
            differences.append(f"weights {name}")
    n_values = 2 * (len(recorded.loss_T) + len(recorded.evaluations))
    return Comparison(run.info.run_name or tags.get(OVERRIDES, run_id), n_values, tuple(differences))


def _differences(recorded: History, again: History) -> list[str]:
    found = []
    for name in ("loss_T", "accuracy_T"):
        before, now = getattr(recorded, name), getattr(again, name)
        if len(before) != len(now):
            found.append(f"train {name[:-2]}: {len(now)} iterations instead of {len(before)}")
        elif len(at := np.flatnonzero(before != now)):
            found.append(f"train {name[:-2]}, from iteration {at[0] + 1} on")
    if recorded.evaluations != again.evaluations:
        found.append("evaluations")
    return found
