"""`python -m lockstep reproduce <run id>`: train a stored run again, and compare."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lockstep.config.errors import Refused
from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.data.description import DataDescription
from lockstep.recovery.temporary import temporary_folder
from lockstep.results import history_file
from lockstep.results.history import History
from lockstep.sweep.checks import check_memory
from lockstep.tracking import recorded_data
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.tracking.tags import KIND, OVERRIDES, PRUNED_AT, RUN_KEY
from lockstep.training import artifacts
from lockstep.training.loop import train


@dataclass(frozen=True)
class Comparison:
    """The result of training a run again.

    Attributes:
        name: the run's name.
        n_values: the number of compared losses and accuracies, from every iteration and every evaluation.
        differences: in words; empty if every bit is the same.
    """

    name: str
    n_values: int
    differences: tuple[str, ...]


def reproduce(store: Store, run_id: str, data: str | None = None) -> Comparison:
    """Train a run again, alone, from its config in the store, and compare every number with the stored one.

    Args:
        data: where the run's data is now, None for where it was.

    Raises:
        MlflowException: if the store has no such run.
        Refused: if it isn't a FINISHED training run, its data isn't available, or what the store has of
            it can't be used.
    """
    run = store.client.get_run(run_id)
    tags = run.data.tags
    if tags.get(KIND) != "run":
        raise Refused([f"{run_id}: not a training run; a sweep's runs are reproduced one by one"])
    if run.info.status != "FINISHED":
        raise Refused([f"{run_id}: {run.info.status}; only a run that is FINISHED can be compared"])
    with temporary_folder() as folder:
        stored = Recorded(store.client, run_id).download(folder)
        if not (stored / history_file.FILE).exists():
            raise Refused([f"{run_id}: the store has no {history_file.FILE} of it"])
        recorded = history_file.read(stored)
        config = RunConfig.from_yaml(stored / artifacts.CONFIG, store.uri)
        try:
            dataset = recorded_data.load(run, config, data)
        except Refused as refused:
            hint = [] if data else [f"if it was moved: python -m lockstep reproduce {run_id} --data PATH"]
            raise Refused([*refused.problems, *hint]) from refused
        pause_at = _checked(config, dataset.description, stored, tags.get(PRUNED_AT))
        differences = []
        if config.run_key(dataset.description.digest) != tags.get(RUN_KEY):
            differences.append("how Lockstep computes is not the same as when it was recorded")
        [again] = train([config], dataset, pause_at=pause_at)
        differences += _differences(recorded, again.history)
        if (weights := stored / artifacts.WEIGHTS).exists():
            differences += [f"weights {name}" for name in artifacts.differing_weights(weights, again.network)]
    n_values = 2 * (len(recorded.loss_T) + len(recorded.evaluations))
    return Comparison(run.info.run_name or tags.get(OVERRIDES, run_id), n_values, tuple(differences))


def _checked(config: RunConfig, data: DataDescription, stored: Path, pruned_at: str | None) -> int | None:
    """Check what others may have written, before anything trains.

    Returns:
        The epoch after which the run was pruned, None if it was not.

    Raises:
        Refused: if it can't be this run's.
    """
    problems = datasets.check_stream(config.data, data) + check_memory(config, data)
    is_epoch = pruned_at is None or (pruned_at.isdecimal() and len(pruned_at) < 10 and int(pruned_at) > 0)
    if not is_epoch or int(pruned_at or 0) > config.trainer.epochs:
        problems.append(f"{PRUNED_AT}={pruned_at}: not one of the run's {config.trainer.epochs} epochs")
    if problems:
        raise Refused(problems)
    if (stored / artifacts.WEIGHTS).exists():
        artifacts.read_network(config, data, stored / artifacts.WEIGHTS)
    if (stored / history_file.FILE).exists():
        history_file.read(stored)
    return None if pruned_at is None else int(pruned_at)


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
