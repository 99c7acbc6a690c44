"""Pictures of a sweep's winner only (`tracking.pictures=best`)."""

import logging
from contextlib import suppress
from pathlib import Path

from mlflow.entities import Run

from lockstep.config.schema import RunConfig
from lockstep.execution import aside, stored_pictures
from lockstep.execution.task import reason_of
from lockstep.recovery.temporary import temporary_folder
from lockstep.results import run_files
from lockstep.tracking import recorded_data
from lockstep.tracking.errors import is_stores
from lockstep.tracking.patience import patient
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.training import network_code
from lockstep.training.network_code import NotNamed

CURVES = "curves"
"""The folder of pictures that is uploaded last: where the store has it, it has all of them."""

log = logging.getLogger("lockstep")


def draw_winner(store: Store, run_id: str, name: str, shared: Path | None = None) -> None:
    """Draw the winner's pictures from what the store has of it, unless the store has them.

    Args:
        name: the run's, for the pictures' titles.
        shared: where `stored_pictures.draw_ahead` drew some.

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
    config = RunConfig.from_yaml(stored / run_files.CONFIG, uri)
    files = recorded_data.load(run, config).files()
    code = network_code.needed_by([config])
    with temporary_folder() as drawn, temporary_folder() as last:
        failures = aside.call(stored_pictures.draw, config, code, files, stored, name, drawn, shared)
        with suppress(FileNotFoundError):  # they could not be drawn
            (drawn / CURVES).rename(last / CURVES)
        for folder in (drawn, last):
            patient(recorded.artifacts)(folder)
    return failures
