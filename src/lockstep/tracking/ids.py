"""Runs and sweeps, found by the start of their id."""

import re

from lockstep.config.errors import Refused
from lockstep.tracking.store import Store

NAMED = 5
"""The most runs that are named if a start is ambiguous."""


def resolve(store: Store, start: str) -> str:
    """Return the id of the one run, or sweep, whose id starts with `start`.

    Raises:
        Refused: if the store has no such run, or several.
    """
    if not re.fullmatch(r"[0-9a-f]{1,32}", start):
        raise Refused([f"{start}: no run id, nor the start of one: these have digits and letters a to f"])
    experiments = [experiment.experiment_id for experiment in store.client.search_experiments()]
    found = store.search(experiments, f"attributes.run_id LIKE '{start}%'")
    if not found:
        raise Refused([f"{start}: no run in {store.address} has an id that starts so"])
    if len(found) > 1:
        more = f"\n  and {len(found) - NAMED} more" if len(found) > NAMED else ""
        lines = "".join(f"\n  {run.info.run_id}  {run.info.run_name}" for run in found[:NAMED])
        raise Refused([f"{start}: {len(found)} runs have ids that start so; give more of one{lines}{more}"])
    run_id: str = found[0].info.run_id
    return run_id
