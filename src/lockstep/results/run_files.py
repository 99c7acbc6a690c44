"""The files that a run leaves: their names, and those that are written without its network."""

from pathlib import Path
from typing import TYPE_CHECKING

from lockstep.results import history_file
from lockstep.results.history import History

if TYPE_CHECKING:
    from lockstep.config.schema import RunConfig

CONFIG = "config.yaml"
WEIGHTS = "model/state_dict.pt"
BUFFERS = "model/buffers.pt"
"""Buffers that a network's state_dict leaves out, where it has such."""
COLUMNS, COLUMN_ROWS = "columns/importance.json", 2000
"""The importance of a table's columns, and the test instances that it is measured on, at most."""


def write_history(config: "RunConfig", history: History, folder: Path) -> None:
    """Write a run's config and history."""
    (folder / CONFIG).write_text(config.to_yaml())
    history_file.write(history, folder)
