"""Pictures of a sweep's winner only (`tracking.pictures=best`)."""

import logging
from contextlib import suppress
from pathlib import Path

from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.execution.task import attempted, reason_of
from lockstep.recovery.temporary import temporary_folder
from lockstep.results import history_file
from lockstep.sweep.entry import Entry
from lockstep.sweep.ledger import Ledger
from lockstep.tracking.errors import is_stores
from lockstep.tracking.patience import patient
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.training import artifacts
from lockstep.training.loop import TrainedRun

CURVES = "curves"
"""The folder of pictures that is uploaded last: where the store has it, it has all of them."""

log = logging.getLogger("lockstep")


def draw_ahead(ledger: Ledger, config: RunConfig) -> None:
    """Draw the pictures that don't depend on which run wins."""
    if config.tracking.pictures == "best" and ledger.shared is not None:
        from lockstep.pictures import run_pictures  # here, because it loads matplotlib

        run_pictures.draw_data(datasets.load(config.data), ledger.shared)


def draw_winner(ledger: Ledger, winner: Entry, store: Store, run_id: str) -> None:
    """Draw the winner's pictures from its artifacts in the store, unless the store has them.

    Raises:
        MlflowException, RequestException: if the store is away for longer than it is waited for.
    """
    if winner.config.tracking.pictures != "best":
        return
    recorded = Recorded(store.client, run_id)
    try:
        with temporary_folder() as folder:
            stored = patient(recorded.download)(folder)
            if not (stored / CURVES).exists():
                for failure in _draw(winner, stored, ledger.shared or folder, recorded):
                    log.warning("%s: %s", winner.name, failure)
    except Exception as error:
        if is_stores(error):  # the same command draws them
            raise
        log.warning("%s: no pictures: %s", winner.name, reason_of(error))


def _draw(winner: Entry, stored: Path, shared: Path, recorded: Recorded) -> list[str]:
    """Draw and upload the pictures that can be drawn; return a line for each of the others."""
    from lockstep.pictures import run_pictures  # here, because it loads matplotlib

    dataset = datasets.load(winner.config.data)
    network = artifacts.read_network(winner.config, dataset.description, stored / artifacts.WEIGHTS)
    run = TrainedRun(winner.config, network, history_file.read(stored))
    with temporary_folder() as drawn, temporary_folder() as last:
        failures = attempted(run_pictures.drawings(run, dataset, winner.name, drawn, shared))
        with suppress(FileNotFoundError):  # they could not be drawn
            (drawn / CURVES).rename(last / CURVES)
        for folder in (drawn, last):
            patient(recorded.artifacts)(folder)
    return failures
