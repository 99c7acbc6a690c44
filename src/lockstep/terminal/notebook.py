"""What changes while runs train, in a notebook: an output that is updated in place.

rich.live.Live needs ipywidgets there, whose content a saved notebook doesn't keep.
"""

import threading
from collections.abc import Callable
from typing import Any

from rich.console import Group
from rich.table import Table


class NotebookLive:
    """A live display, used as rich.live.Live.

    Args:
        get_renderable: called at each refresh.
        refresh_per_second: how often.
    """

    def __init__(self, get_renderable: Callable[[], Group], refresh_per_second: float) -> None:
        self._get, self._seconds = get_renderable, 1 / refresh_per_second
        self._output: Any = None  # IPython's DisplayHandle
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    @property
    def is_started(self) -> bool:
        return self._output is not None

    def start(self) -> None:
        """Show it."""
        from IPython.display import display

        self._output = display(self._shown(), display_id=True)
        self._thread.start()

    def stop(self) -> None:
        """Remove it."""
        self._stopped.set()
        self._thread.join()
        self._output.update({"text/plain": "", "text/html": ""}, raw=True)

    def _refresh(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._output.update(self._shown())

    def _shown(self) -> Table:
        """Return what rich displays in a notebook; a Group is not."""
        grid = Table.grid()
        for part in self._get().renderables:
            grid.add_row(part)
        return grid
