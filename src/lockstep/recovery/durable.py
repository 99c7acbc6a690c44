"""Writing a file so that a kill or a power cut leaves the old one or the new one, never a part."""

import os
from pathlib import Path

ATTEMPTS = 5
"""How often a file is written whose folder somebody removes in the meantime."""


def replace(path: Path, content: bytes, is_synced: bool = True) -> None:
    """Replace a file atomically; make its folder where somebody has removed it, also while it is written.

    Args:
        is_synced: whether it survives a power cut; else it may be lost then, or be empty.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            _replace(path, content, is_synced)
            return
        except FileNotFoundError:
            if not left:
                raise


def _replace(path: Path, content: bytes, is_synced: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        if is_synced:
            os.fsync(file.fileno())
    part.rename(path)
    if is_synced:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the new name
        finally:
            os.close(descriptor)
