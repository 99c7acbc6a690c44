"""What earlier commands left in run folders: uploaded (`deliver`), listed (`status`), abandoned (`drop`)."""

import os
from collections.abc import Iterator
from pathlib import Path

from lockstep.config.errors import Refused
from lockstep.config.identity import NUMERICS_VERSION
from lockstep.recovery.description import Description
from lockstep.recovery.run_folder import RunFolder, folders
from lockstep.recovery.seal import Unreadable
from lockstep.tracking.address import sqlite_path, without_secrets
from lockstep.tracking.errors import message_of
from lockstep.tracking.links import verb
from lockstep.tracking.store import Store
from lockstep.tracking.tags import conclusion
from lockstep.tracking.uploader import Uploader


def upload_pending(root: Path) -> list[str]:
    """Upload the run folders in `root`, or `root` itself, to the stores that they are meant for.

    Returns:
        A line for each folder that could not be uploaded, with the reason. It stays where it is.
    """
    left = []
    by_store: dict[str, list[RunFolder]] = {}
    for folder in folders(root):
        try:
            by_store.setdefault(folder.read().uri, []).append(folder)
        except Unreadable as error:
            left.append(leftover(folder, str(error)))
    for address, in_store in by_store.items():
        try:
            uploader = Uploader(store_at(address))
        except Refused as refused:
            left.append(f"{refused}\n  (a password is given with the address, as MLFLOW_TRACKING_URI)")
            continue
        for folder in in_store:
            if not folder.claim():
                left.append(f"{folder.path}: a command is at work on it")
                continue
            try:
                uploader.adopt(folder, is_own=True)
            except Unreadable as error:
                left.append(leftover(folder, str(error)))
        with uploader:
            pending = uploader.wait()
        left += [
            leftover(upload.folder, upload.trouble or "no answer", upload.description.name)
            for upload in pending
        ]
    return left


def leftover(folder: RunFolder, why: str, name: str = "") -> str:
    """Return a line that says why a folder (and its run's name) could not be uploaded, and what to do."""
    see, drop = verb("status", folder.path.parent), verb("drop", folder.path)
    which = f"{folder.path.name} ({name})" if name else folder.path.name
    return f"{which}: not uploaded: {why}; see `{see}`; abandon it with `{drop}`"


def listed(root: Path) -> Iterator[str]:
    """Yield, for each run folder in `root`, its id, run, store, state, last error, and who works on it."""
    for folder in folders(root):
        yield folder.path.name
        try:
            description = folder.read()
            yield f"  {description.name}, experiment {description.experiment} in {description.uri}"
            yield f"  {_state(folder, description)}"
        except (Unreadable, Refused) as error:
            yield f"  {error}"
        if trouble := folder.trouble:
            yield f"  could not be uploaded: {trouble}"
        if (pid := folder.holder) is not None:
            yield f"  process {pid} works on it"


def _state(folder: RunFolder, description: Description) -> str:
    """Return a run's or a parent's state in words."""
    resumable = "the same command resumes it"
    if description.kind == "sweep":
        if description.status not in (None, "KILLED"):
            left = "its report or model" if description.closed else "its end"
            return f"sweep, {description.status}; {left} is not uploaded yet"
        return f"sweep, not finished; {resumable}"
    history, ended = folder.history()
    if ended is not None:
        return f"run, {conclusion(history, ended)[0]}; not uploaded yet"
    epochs = (description.config or {}).get("trainer", {}).get("epochs", "?")
    done = f"{history.epochs} of {epochs} epochs"
    if description.numerics_version != NUMERICS_VERSION:
        resumable = "of an earlier numerics version: the same command trains it anew"
    return f"run, {done}" + ("" if description.kind == "single" else f"; {resumable}")


def abandon(folder: RunFolder) -> str:
    """Set a folder's MLflow run to KILLED and remove the folder.

    Returns:
        Why the MLflow run could not be set, empty if it was or there is none.

    Raises:
        Refused: if another process works on the folder.
    """
    if not folder.claim():
        raise Refused([f"{folder.path}: process {folder.holder} works on it; end that first"])
    why = ""
    try:
        _kill(folder.read())
    except Exception as error:  # whatever the store answers
        why = message_of(error)
    with folder.in_training():  # its worker may outlive its command by a moment
        folder.remove()
    folder.release()
    return why


def _kill(description: Description) -> None:
    store = store_at(description.uri)
    if store.client.get_experiment_by_name(description.experiment) is None:
        return
    run_id = description.run_id or store.find(description.experiment, description.token)
    if run_id is not None and store.client.get_run(run_id).info.status == "RUNNING":
        store.client.set_terminated(run_id, "KILLED")


def store_at(address: str) -> Store:
    """Open the store with this address; never create it.

    Raises:
        Refused: if it isn't there or can't be used.
    """
    typed = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address.startswith("sqlite") and not sqlite_path(address).exists():
        raise Refused([f"{address}: there is no such store"])
    return Store(typed if without_secrets(typed) == address else address)
