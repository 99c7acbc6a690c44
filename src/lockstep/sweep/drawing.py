"""Pictures of a sweep's winner only (`tracking.pictures=best`)."""

import logging
import tempfile
from pathlib import Path

from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.results import history_file
from lockstep.sweep.ledger import Entry, Ledger
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.training import artifacts
from lockstep.training.loop import TrainedRun

log = logging.getLogger("lockstep")


def draw_ahead(ledger: Ledger, config: RunConfig) -> None:
    """Draw the pictures that don't depend on which run wins."""
    if config.tracking.pictures == "best" and ledger.shared is not None:
        from lockstep.pictures import run_pictures  # here, because it loads matplotlib

        run_pictures.draw_data(datasets.load(config.data), ledger.shared)


def draw_winner(ledger: Ledger, winner: Entry, store: Store, run_id: str) -> None:
    """Draw the winner's pictures from its artifacts in the store, unless the store has them."""
    if winner.config.tracking.pictures != "best":
        return
    recorded = Recorded(store.client, run_id)
    try:
        with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
            stored = recorded.download(Path(folder))
            if not (stored / "curves").exists():
                _draw(winner, stored, ledger.shared or Path(folder), recorded)
    except Exception as error:  # the run itself is in the store
        log.warning("no pictures of %s: %s", winner.name, error)


def _draw(winner: Entry, stored: Path, shared: Path, recorded: Recorded) -> None:
    from lockstep.pictures import run_pictures  # here, because it loads matplotlib

    dataset = datasets.load(winner.config.data)
    network = artifacts.read_network(winner.config, dataset.description, stored / artifacts.WEIGHTS)
    run = TrainedRun(winner.config, network, history_file.read(stored))
    with tempfile.TemporaryDirectory(prefix="lockstep-") as drawn:
        run_pictures.draw_run(run, dataset, winner.name, Path(drawn), shared)
        recorded.artifacts(Path(drawn))
