"""`python -m lockstep status`, `drop <id>` and `relocate`: what interruptions and a move leave behind."""

import sys
from pathlib import Path

from lockstep.config.errors import Refused, nearest
from lockstep.recovery.run_folder import RunFolder, unfinished
from lockstep.terminal.console import console
from lockstep.tracking import pending, relocation
from lockstep.tracking.store import Store


def show(root: Path | None) -> None:
    """Print what is unfinished or pending in a folder, by default outputs/unfinished."""
    lines = list(pending.listed(root or unfinished()))
    for line in lines or ["nothing is unfinished, all is in the store"]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


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
