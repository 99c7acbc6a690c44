"""Where runs are seen in MLflow's UI."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from lockstep.config.errors import without_password


def how_to_open(uri: str, experiment_id: str) -> str:
    """Return a sentence that tells how to open an experiment."""
    runs = f"#/experiments/{experiment_id}/runs"
    if uri.startswith("http"):
        return f"open {_address(uri)}/{runs}"
    root = Path(os.environ.get("LOCKSTEP_ROOT", "."))
    if uri == f"sqlite:///{root / 'outputs' / 'mlflow.db'}":
        command = "make ui" if root == Path.cwd() else f"make -C {root} ui"
    else:
        command = f"mlflow ui --backend-store-uri {without_password(uri)}"
    return f"{command}, then open {_address(uri)}/{runs}"


def run_link(uri: str, experiment_id: str, run_id: str) -> str:
    """Return a run's address."""
    return f"{_address(uri)}/#/experiments/{experiment_id}/runs/{run_id}"


def runs_link(uri: str, experiment_ids: Sequence[str], search: str, metric: str, maximize: bool) -> str:
    """Return the address of the runs that a search finds in some experiments, best by a metric first."""
    wanted = {
        "searchFilter": search,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": str(not maximize).lower(),
    }
    if len(experiment_ids) == 1:
        return f"{_address(uri)}/#/experiments/{experiment_ids[0]}/runs?{urlencode(wanted, quote_via=quote)}"
    wanted = {"experiments": json.dumps(list(experiment_ids)), **wanted}
    return f"{_address(uri)}/#/compare-experiments/s?{urlencode(wanted, quote_via=quote)}"


def _address(uri: str) -> str:
    return without_password(uri).rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
