"""Pictures of a sweep's winner only (`tracking.pictures=best`)."""

import logging
from contextlib import suppress
from pathlib import Path

from mlflow.entities import Run

from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.execution.task import attempted, reason_of
from lockstep.recovery.temporary import temporary_folder
from lockstep.results import history_file, predictions_file
from lockstep.tracking import recorded_data
from lockstep.tracking.errors import is_stores
from lockstep.tracking.patience import patient
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.training import artifacts
from lockstep.training.loop import TrainedRun
from lockstep.training.network_code import NotNamed

CURVES = "curves"
"""The folder of pictures that is uploaded last: where the store has it, it has all of them."""

log = logging.getLogger("lockstep")


def draw_ahead(shared: Path | None, config: RunConfig) -> None:
    """Draw the pictures that don't depend on which run wins, in a folder that lasts until then."""
    if config.tracking.pictures == "best" and shared is not None:
        from lockstep.pictures import run_pictures  # here, because it loads matplotlib

        run_pictures.draw_data(datasets.load(config.data), shared)


def draw_winner(store: Store, run_id: str, name: str, shared: Path | None = None) -> None:
    """Draw the winner's pictures from what the store has of it, unless the store has them.

    Args:
        name: the run's, for the pictures' titles.
        shared: the folder of `draw_ahead`.

    Raises:
        MlflowException, RequestException: if the store is away for longer than it is waited for.
    """
    recorded = Recorded(store.client, run_id)
    try:
        with temporary_folder() as folder:
            stored = patient(recorded.download)(folder)
            if not (stored / CURVES).exists():
                run = store.client.get_run(run_id)
                for failure in _draw(run, stored, store.uri, name, shared or folder, recorded):
                    log.warning("%s: %s", name, failure)
    except Exception as error:
        if is_stores(error) or isinstance(error, NotNamed):  # the same command draws them, or `deliver`
            raise
        log.warning("%s: no pictures: %s", name, reason_of(error))


def _draw(run: Run, stored: Path, uri: str, name: str, shared: Path, recorded: Recorded) -> list[str]:
    """Draw and upload the pictures that can be drawn; return a line for each of the others."""
    from lockstep.pictures import run_pictures  # here, because it loads matplotlib

    config = RunConfig.from_yaml(stored / artifacts.CONFIG, uri)
    dataset = recorded_data.load(run, config)
    network = artifacts.read_network(config, dataset.description, stored / artifacts.WEIGHTS)
    trained = TrainedRun(config, network, history_file.read(stored))
    with temporary_folder() as drawn, temporary_folder() as last:
        predictions = stored / predictions_file.FILE  # which runs of earlier versions don't have
        recorded_predictions = predictions if predictions.exists() else None
        failures = attempted(
            run_pictures.drawings(trained, dataset, name, drawn, shared, recorded_predictions)
        )
        with suppress(FileNotFoundError):  # they could not be drawn
            (drawn / CURVES).rename(last / CURVES)
        for folder in (drawn, last):
            patient(recorded.artifacts)(folder)
    return failures
