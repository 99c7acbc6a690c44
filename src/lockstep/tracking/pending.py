"""Uploads pending results of earlier commands: `python -m lockstep deliver`."""

import os
from pathlib import Path

from lockstep.config.errors import Refused, without_password
from lockstep.recovery.run_folder import RunFolder, folders
from lockstep.tracking.store import Store
from lockstep.tracking.uploader import Uploader


def upload_pending(root: Path) -> list[str]:
    """Upload the run folders in `root`, or `root` itself, to the stores that they are meant for.

    Returns:
        A line for each folder that could not be uploaded, with the reason. It stays where it is.
    """
    left = []
    by_store: dict[str, list[RunFolder]] = {}
    for folder in folders(root):
        by_store.setdefault(folder.read().uri, []).append(folder)
    for address, in_store in by_store.items():
        typed = os.environ.get("MLFLOW_TRACKING_URI", "")
        try:
            store = Store(typed if without_password(typed) == address else address)
        except Refused as refused:
            left.append(f"{refused}\n  (a password is given with the address, as MLFLOW_TRACKING_URI)")
            continue
        uploader = Uploader(store)
        for folder in in_store:
            if folder.claim():
                uploader.adopt(folder)
            else:
                left.append(f"{folder.path}: a command is at work on it")
        with uploader:
            left += [f"{upload.folder.path}: {uploader.trouble}" for upload in uploader.wait()]
    return left
