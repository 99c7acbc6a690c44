"""A run's journal: its events as lines of JSON, in an append-only file.

A line is written in one call and counts only if it is complete; a line cut short by a kill or a power cut is
ignored. Numbers are read back bit for bit. Each line is sealed for its folder and its place in the file: so a
line that was changed, moved, repeated or left out does not check. Lines of version 0.1.0 have no seal.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path

import numpy as np

from lockstep.recovery.seal import Damaged, sealed, unsealed
from lockstep.results.history import Epoch, Evaluation


@dataclass(frozen=True)
class Ended:
    """The end of a run: its artifacts are written, or it failed, for `reason`, with `trace`.

    Attributes:
        pruned_at: the epochs after which a search pruned it, to three decimals; or None.
        stopped_at, restored_epoch: see RunResult.
        metrics: metrics measured once, at its end.
        warnings: what failed but cost the run nothing else, such as a picture.
        library_warnings: what libraries warned of in a worker.
        artifacts: the seal of each artifact, by its path in the folder; empty in journals of version 0.1.0.
    """

    reason: str = ""
    trace: str = ""
    pruned_at: float | None = None
    stopped_at: int | None = None
    restored_epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    library_warnings: list[str] = field(default_factory=list)
    artifacts: dict[str, str] = field(default_factory=dict)


Event = Epoch | Ended


class Journal:
    """The journal of one run, at `path`; one process writes it, others read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_bytes = 0  # by `unread`, in whole events
        self.n_unsealed = 0  # events read that version 0.1.0 wrote

    def append(self, event: Event) -> None:
        """Write an event.

        Raises:
            OSError: if it can't be written; the journal is then unchanged.
        """
        with self.path.open("ab", buffering=0) as file:
            self._write(file, sealed(_text(event), self._place(file.tell())) + b"\n")

    def extend(self, lines: bytes) -> None:
        """Write the next events as another copy of the journal has them.

        Raises:
            OSError: if they can't be written; the journal is then unchanged.
        """
        with self.path.open("ab", buffering=0) as file:
            self._write(file, lines)

    def _write(self, file: FileIO, lines: bytes) -> None:
        start = file.tell()
        if file.write(lines) != len(lines):  # a full disk may accept a part
            file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def mend(self) -> None:
        """Cut off an incomplete last line, before the next is written."""
        if self.path.exists():
            whole = self.path.read_bytes().rfind(b"\n") + 1
            os.truncate(self.path, whole)

    def sync(self) -> None:
        """Sync the file to disk, so that it survives a power cut; without one there is nothing to sync."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            os.fsync(file.fileno())

    def unread(self) -> Iterator[Event]:
        """Yield the complete events that were written since the last call.

        Raises:
            Damaged: at an event that is not what was written.
        """
        try:
            if os.stat(self.path).st_size == self.read_bytes:
                return
        except FileNotFoundError:  # no event yet
            return
        with self.path.open("rb") as file:
            file.seek(self.read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                event = self._event(line[:-1])
                self.n_unsealed += line.startswith(b"{")
                self.read_bytes += len(line)
                yield event

    def _event(self, line: bytes) -> Event:
        if not line.startswith(b"{"):
            return _event(unsealed(line, self._place(self.read_bytes)))
        try:
            return _event(line)  # of version 0.1.0
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise Damaged(repr(error)) from error

    def _place(self, start: int) -> str:
        return f"{self.path.parent.name}/{self.path.name} {start}"


def _text(event: Event) -> bytes:
    if isinstance(event, Ended):
        entry = {"ended": asdict(event)}
    else:
        values = {key: getattr(event, key) for key in ("seconds", "diverged", "at", "canary")}
        evaluations = [asdict(evaluation) for evaluation in event.evaluations]
        vectors = {"loss_T": event.loss_T.tolist(), "accuracy_T": event.accuracy_T.tolist()}
        part = {"is_part": True} if event.is_part else {}
        entry = {"epoch": {**values, **part, "evaluations": evaluations, **vectors}}
    return json.dumps(entry).encode()


def _event(text: bytes) -> Event:
    [(kind, values)] = json.loads(text).items()
    if kind == "ended":
        return Ended(**values)
    evaluations = tuple(Evaluation(**evaluation) for evaluation in values.pop("evaluations"))
    loss_T, accuracy_T = (np.array(values.pop(key), dtype=np.float64) for key in ("loss_T", "accuracy_T"))
    return Epoch(loss_T=loss_T, accuracy_T=accuracy_T, evaluations=evaluations, **values)
