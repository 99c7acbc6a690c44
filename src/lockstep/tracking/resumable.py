"""Runs in the store that a command may resume: those that this outputs folder has recorded.

Where several machines share a store, another machine's command may be at work on the others, and no claim
tells: two commands that recorded the same run would each set its status, members and winner.
"""

from dataclasses import replace

from mlflow.entities import Run

from lockstep.recovery.description import Description
from lockstep.recovery.outputs_id import outputs_id
from lockstep.tracking.patience import patient
from lockstep.tracking.store import Store
from lockstep.tracking.tags import OUTPUTS, RUN_KEY, SWEEP_KEY, TOKEN


def parent(store: Store, experiment: str, sweep_key: str) -> str | None:
    """Return the id of the latest parent run of a sweep, or None."""
    found = _latest(store, experiment, f"tags.`{SWEEP_KEY}` = '{sweep_key}'")
    return found[0].info.run_id if found else None


def resumed(store: Store, description: Description, run_key: str) -> Description:
    """Return the description of a run of a sweep whose folder has lost it, with the latest run in the store
    that has this key and has not ended, if there is one."""
    of_sweeps = f"tags.`{RUN_KEY}` = '{run_key}' AND tags.`mlflow.parentRunId` LIKE '%'"
    for run in _latest(store, description.experiment, of_sweeps):
        if run.info.status in ("RUNNING", "KILLED"):
            return replace(description, run_id=run.info.run_id, token=run.data.tags[TOKEN])
    return description


@patient
def _latest(store: Store, experiment: str, search: str) -> list[Run]:
    """Return runs of this outputs folder, the latest first. Runs without the tag are of earlier versions."""
    found = store.search([store.known_id(experiment)], search, ["attributes.start_time DESC"])
    return [run for run in found if run.data.tags.get(OUTPUTS) in (None, outputs_id())]
