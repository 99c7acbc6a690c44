"""`python -m lockstep deliver`, `status`, `drop <id>` and `relocate`: what interruptions and a move leave."""

import sys
from pathlib import Path

from lockstep.config.errors import Refused, nearest
from lockstep.recovery.run_folder import RunFolder, folders, unfinished
from lockstep.recovery.seal import Unreadable
from lockstep.sweep import conclusion
from lockstep.terminal.console import console
from lockstep.tracking import pending, relocation
from lockstep.tracking.store import Store


def show(root: Path | None) -> None:
    """Print what is unfinished or pending in a folder, by default outputs/unfinished."""
    lines = list(pending.listed(root or unfinished()))
    for line in lines or ["nothing is unfinished, all is in the store"]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def deliver(root: Path) -> list[str]:
    """Upload the run folders in a folder, or one, and do what their sweeps owe.

    Returns:
        A line for each thing that the store still lacks, with the reason.
    """
    left = pending.upload_pending(root)
    for folder in folders(root):
        try:
            if folder.owes and folder.claim() and folder.read().closed:
                left += conclusion.complete(pending.store_at(folder.read().uri), folder)
        except (Unreadable, Refused) as error:
            left.append(pending.leftover(folder, str(error)))
    return left


def drop(names: list[str]) -> None:
    """Abandon run folders: their MLflow runs become KILLED, the folders are removed.

    Args:
        names: ids that `status` shows, or paths.

    Raises:
        Refused: if there is no such folder, or another process works on it.
    """
    found = [_folder(name) for name in names]
    for folder in found:
        why = pending.abandon(folder)
        console.print(f"dropped {folder.path}", soft_wrap=True, markup=False, highlight=False)
        if why:
            print(f"its MLflow run could not be set to KILLED: {why}", file=sys.stderr)


def relocate(store: Store) -> None:
    """Rewrite the artifact locations of a store that was moved, and print what was done.

    Raises:
        Refused: see relocation.
    """
    done = relocation.relocate(store)
    if done is None:
        console.print("nothing to do: no artifacts beside the store are looked for elsewhere")
        return
    said = f"{done.locations} locations rewritten; the store as it was:\n{done.backup}"
    console.print(said, soft_wrap=True, markup=False, highlight=False)


def _folder(name: str) -> RunFolder:
    """Return the run folder with this id or path."""
    folder = RunFolder(Path(name).absolute() if "/" in name else unfinished() / name)
    if not folder.exists():
        root = folder.path.parent
        ids = [path.name for path in root.glob("*/")]
        raise Refused([f"{name}: no run folder in {root}{nearest(folder.path.name, ids)}"])
    return folder
