"""Where runs are seen in MLflow's UI, and commands that can be pasted into a shell."""

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from lockstep.config import places
from lockstep.tracking import serving
from lockstep.tracking._mlflow_compat import VIEW
from lockstep.tracking.address import sqlite_path, with_options, without_secrets


def verb(name: str, *arguments: str | Path) -> str:
    """Return a command that carries out a verb of Lockstep's."""
    return f"{places.verbs()} {shlex.join([name, *map(str, arguments)])}"


def on_store(uri: str, command: str) -> str:
    """Return a command that acts on the store at `uri`."""
    if without_secrets(os.environ.get("MLFLOW_TRACKING_URI", "")) == uri:
        return command  # its password, if it has one, stands there
    return f"MLFLOW_TRACKING_URI={shlex.quote(uri)} {command}"


TRAINING = "workflowType=machine_learning"
"""Has MLflow's UI show what belongs to training, not its GenAI pages."""


def of_mlflow(*words: str) -> str:
    """Return a command of MLflow's, with this Python."""
    return shlex.join([sys.executable, "-m", "mlflow", *words])


def how_to_open(uri: str, address: str) -> str:
    """Return a sentence that tells how to open an address of MLflow's UI (`view_link`, `run_link`)."""
    if uri.startswith("http"):
        return f"open {address}"
    is_sqlite = uri.startswith("sqlite")
    if is_sqlite and sqlite_path(uri) == places.outputs() / "mlflow.db":
        if serving.served() is not None:
            return f"open {address}"
        command = _ui_command(places.root())
    else:
        store = with_options(uri) if is_sqlite else without_secrets(uri)
        command = f"mlflow ui --backend-store-uri {shlex.quote(store)} --port {serving.port()}"
    return f"{command}, then open {address}"


def view_of(tags: Mapping[str, str], parent: str) -> str:
    """Return the key of a sweep's view in MLflow's UI; empty if none was recorded.

    Args:
        tags: of the parent run's experiment.
        parent: the parent run's id.
    """
    return view_key(parent) if tags.get(VIEW + view_key(parent)) else ""


def view_key(parent: str) -> str:
    """Return the key under which the view of a parent run's sweep is recorded."""
    return parent[:8]


def view_link(uri: str, experiment_id: str, view: str = "") -> str:
    """Return the address of an experiment's runs, or of a sweep's view of them."""
    shown = f"&viewStateShareKey={view}" if view else ""
    return f"{_address(uri)}/#/experiments/{experiment_id}/runs?{TRAINING}{shown}"


def _ui_command(root: Path) -> str:
    if places.program() != "python run.py":
        return verb("ui")
    return "make ui" if root == Path.cwd() else f"make -C {shlex.quote(str(root))} ui"


def run_link(uri: str, experiment_id: str, run_id: str) -> str:
    """Return a run's address."""
    return f"{_address(uri)}/#/experiments/{experiment_id}/runs/{run_id}?{TRAINING}"


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


def local() -> str:
    """Return the address of MLflow's UI on this machine."""
    return f"http://127.0.0.1:{serving.port()}"


def _address(uri: str) -> str:
    return without_secrets(uri).rstrip("/") if uri.startswith("http") else local()
