"""What becomes of a run, event by event, as lines of JSON in a file that only grows.

A line is written at once and counts when it is whole: what is cut short by a kill or a power cut is as if it
had not happened. Numbers are written so that they are read back bit for bit.
"""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from lockstep.results.history import Epoch, Evaluation


@dataclass(frozen=True)
class Ended:
    """A run is over and its artifacts are written; or it failed, `reason` and `trace` say why.

    Attributes:
        pruned_at: the epochs after which a search gave it up, or None.
        metrics: what was measured of it at its end.
    """

    reason: str = ""
    trace: str = ""
    pruned_at: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)


Event = Epoch | Ended


class Journal:
    """The journal of one run, at `path`, of which one process writes and others read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0  # bytes

    def append(self, event: Event) -> None:
        """Write an event.

        Raises:
            OSError: if it can't be written; nothing of it counts then.
        """
        line = _line(event)
        with self.path.open("ab", buffering=0) as file:
            start = file.tell()
            if file.write(line) != len(line):  # a full disk may take a part
                file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def mend(self) -> None:
        """Cut off a last line that is not whole, before the next is written."""
        if self.path.exists():
            whole = self.path.read_bytes().rfind(b"\n") + 1
            os.truncate(self.path, whole)

    def sync(self) -> None:
        """Return when what was written survives a power cut."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def unread(self) -> Iterator[Event]:
        """The whole events that were written since this was last asked."""
        try:
            if os.stat(self.path).st_size == self._read:
                return
        except FileNotFoundError:  # nothing has happened yet
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                yield _event(line)


def _line(event: Event) -> bytes:
    if isinstance(event, Ended):
        entry = {"ended": asdict(event)}
    else:
        values = {key: getattr(event, key) for key in ("seconds", "diverged", "at")}
        evaluations = [asdict(evaluation) for evaluation in event.evaluations]
        vectors = {"loss_T": event.loss_T.tolist(), "accuracy_T": event.accuracy_T.tolist()}
        entry = {"epoch": {**values, "evaluations": evaluations, **vectors}}
    return json.dumps(entry).encode() + b"\n"


def _event(line: bytes) -> Event:
    [(kind, values)] = json.loads(line).items()
    if kind == "ended":
        return Ended(**values)
    evaluations = tuple(Evaluation(**evaluation) for evaluation in values.pop("evaluations"))
    loss_T, accuracy_T = (np.array(values.pop(key), dtype=np.float64) for key in ("loss_T", "accuracy_T"))
    return Epoch(loss_T=loss_T, accuracy_T=accuracy_T, evaluations=evaluations, **values)
