"""A sweep's report in the store: taken from there if the sweep is as it was when the report was made."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from mlflow.exceptions import MlflowException

from lockstep import __version__
from lockstep.tracking import links
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.tracking.sweeps import Sweep
from lockstep.tracking.tags import REPORT

NAME, KEPT = "report.html", "sweep.json"
"""The report's file, and the file beside it that names its store and sweep."""


def write(store: Store, sweep: Sweep, folder: Path) -> Path:
    """Write the report to the sweep's folder, from the store if it has it; return its path."""
    if store.client.get_run(sweep.run_id).data.tags.get(REPORT) == _made_of(store, sweep):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            store.client.download_artifacts(sweep.run_id, NAME, str(folder))
            return _kept(store, sweep, folder)
        except (MlflowException, OSError):  # it was deleted there
            pass
    return make(store, sweep, folder)


def make(store: Store, sweep: Sweep, folder: Path) -> Path:
    """Make the report in the sweep's folder, upload it to its parent run, and return its path."""
    from lockstep.report import page  # here, because loading plotly and scikit-learn takes a moment

    text = page.build(store, sweep)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NAME).write_text(text, encoding="utf-8")
    parent = Recorded(store.client, sweep.run_id)
    parent.artifact(folder / NAME)
    parent.tag({REPORT: _made_of(store, sweep)})
    return _kept(store, sweep, folder)


def _kept(store: Store, sweep: Sweep, folder: Path) -> Path:
    """Write beside a report which sweep it is of; return the report's path."""
    kept = {"uri": store.address, "run_id": sweep.run_id}
    (folder / KEPT).write_text(json.dumps(kept, indent=1) + "\n")
    return folder / NAME


def _made_of(store: Store, sweep: Sweep) -> str:
    """Return a hash of what a report is made of: the sweep, where it is, and the version of the page."""
    made_of = (__version__, store.address, links.local(), asdict(sweep))
    return hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()
