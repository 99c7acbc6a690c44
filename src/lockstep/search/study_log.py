"""The log of an Optuna study, with the seals of its parts in a file beside it.

The log is Optuna's own format, so that its tools open it.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from lockstep.recovery.mending import free_place
from lockstep.recovery.run_folder import unfinished
from lockstep.recovery.seal import Damaged, seal_of, sealed, unsealed

log = logging.getLogger("lockstep")


class StudyLog(BaseJournalBackend):
    """A study's log for a single writer, synced only by `sync`.

    Optuna's own backend takes a lock and syncs the file about 10 times per trial. The seal of a part is
    written before the part. When a damaged log is opened, a copy of it goes to `outputs/unfinished/damaged/`,
    and the study continues from the parts before the damage.

    Args:
        path: the log. The seals are in a file of the same name and `.seals`.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._seals = path, path.with_name(f"{path.name}.seals")
        self._path.touch()
        self._mend()
        self._entries: list[dict[str, Any]] = []
        self._read = 0  # bytes
        self._held: list[dict[str, Any]] | None = None  # entries of a part that is not written yet

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Return the entries from a number on, as `BaseJournalBackend` requires."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                self._entries.append(json.loads(line))
                self._read += len(line)
        return [*self._entries, *(self._held or [])][log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries."""
        if self._held is not None:
            self._held += logs
            return
        part = "".join(f"{json.dumps(entry, separators=(',', ':'))}\n" for entry in logs).encode()
        with self._path.open("ab") as file:
            self._seal(file.tell(), part)
            file.write(part)

    @contextmanager
    def as_one_part(self) -> Iterator[None]:
        """Write all entries of the block as one part, at its end: a kill leaves all of them, or none."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            self.append_logs(held)

    def sync(self) -> None:
        """Sync the files to disk, so that they survive a power cut."""
        for path in (self._seals, self._path):
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def _seal(self, start: int, part: bytes) -> None:
        line = f"{start + len(part)} {seal_of(part, self._place(start))}".encode()
        with self._seals.open("ab") as file:
            file.write(sealed(line, self._place(start)) + b"\n")

    def _place(self, start: int) -> str:
        return f"{self._path.parent.name}/{self._path.name} {start}"

    def _mend(self) -> None:
        """Cut the log after its last whole part, and the seals with it; set it aside if it is damaged."""
        written, start, n_whole, seals_bytes = self._path.read_bytes(), 0, 0, 0
        try:
            parts = self._parts()
        except (Damaged, FileNotFoundError) as error:  # version 0.1.0 has no seals
            if isinstance(error, Damaged):
                self._set_aside(self._seals, f"{error}; the log is taken as it is")
            whole = written.rfind(b"\n") + 1
            os.truncate(self._path, whole)
            self._seals.write_bytes(b"")
            self._seal(0, written[:whole])
            return
        for end, seal, size in parts:
            if seal != seal_of(written[start:end], self._place(start)):
                break
            start, n_whole, seals_bytes = end, n_whole + 1, seals_bytes + size
        # A kill leaves at most one part that isn't whole, and that is cut short.
        left = parts[n_whole:]
        if len(written) > (left[0][0] - 1 if left else start) or len(left) > 1:
            self._set_aside(self._path, f"it is not what was written from byte {start} on")
        os.truncate(self._path, start)
        os.truncate(self._seals, seals_bytes)

    def _parts(self) -> list[tuple[int, str, int]]:
        """Return for each part its end in the log, its seal, and the size of the line with it, in bytes.

        Raises:
            Damaged: if a line is not what was written.
        """
        parts: list[tuple[int, str, int]] = []
        for line in self._seals.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                start = parts[-1][0] if parts else 0
                end, _, seal = unsealed(line[:-1], self._place(start)).decode().partition(" ")
                parts.append((int(end), seal, len(line)))
        return parts

    def _set_aside(self, path: Path, why: str) -> None:
        kept = shutil.copyfile(path, free_place(unfinished(), path))
        log.warning("%s is damaged: %s; a copy is %s", path, why, kept)
