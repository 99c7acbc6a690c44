"""Checks of a command's runs beyond single values: data, devices, the store."""

from collections.abc import Sequence
from functools import cache

from mlflow.exceptions import MlflowException

from lockstep.config.errors import Refused
from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.recovery.claims import Claims
from lockstep.recovery.run_folder import unfinished
from lockstep.tracking.errors import message_of
from lockstep.tracking.store import Store
from lockstep.training.device import device_of

store_at = cache(Store)


def check_runs(configs: Sequence[RunConfig]) -> None:
    """Check the data and devices of runs.

    Raises:
        Refused: listing every problem.
    """
    problems: list[str] = []
    for stream, trainer in dict.fromkeys((config.data, config.trainer) for config in configs):
        try:
            device_of(trainer)
            problems += datasets.check_stream(stream, datasets.load(stream).description)
        except Refused as refused:
            problems += refused.problems
    uris = {config.tracking.uri for config in configs}
    if len(uris) > 1:
        problems.append("tracking.uri: the runs of a sweep are recorded in one store; give one value")
    if problems:
        raise Refused(problems)


def check_store(configs: Sequence[RunConfig]) -> None:
    """Open the runs' store and the folder of run folders, creating them if needed; so this is the last check.

    Raises:
        Refused: if it can't be used.
    """
    Claims(unfinished() / "claims")
    store = store_at(configs[0].tracking.uri)
    for name in {config.tracking.experiment for config in configs}:
        try:
            store.experiment_id(name)
        except MlflowException as error:
            raise Refused([f"tracking.experiment={name}: {message_of(error)}"]) from error
