"""A sweep's parent run: new, or continued from an earlier command of the same sweep."""

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lockstep.recovery.description import Description
from lockstep.recovery.mending import mend
from lockstep.recovery.run_folder import RunFolder, folder_name, unfinished
from lockstep.results.history import Status
from lockstep.sweep.conclusion import Conclusion
from lockstep.tracking import resumable
from lockstep.tracking.store import Store
from lockstep.tracking.tags import RUN_KEY
from lockstep.tracking.upload import Upload
from lockstep.tracking.uploader import Uploader

log = logging.getLogger("lockstep")


@dataclass(frozen=True)
class SweepRequest:
    """The settings of a sweep's parent run.

    Attributes:
        key: identifies the sweep: the same sweep continues its parent run.
        earlier_keys: of earlier numerics versions (lockstep.config.identity), whose parent runs continue.
        earlier_folder: the name of the parent's folder in version 0.1.0.
        folder: the sweep's, for its report; None for a sweep that is only recorded.
        command: that asked for it, quoted for a shell; empty where no shell was used.
        run_id: the parent run, if known.
        labels: the tags that the user gave.
        rerun: whether the sweep's runs are trained again, under a new parent.
        scales: on which keys are searched, `log` or `linear` by key; empty for a grid.
    """

    name: str
    overrides: Sequence[str]
    experiment: str
    key: str
    earlier_folder: str
    folder: Path | None = None
    command: str = ""
    run_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    rerun: bool = False
    scales: Mapping[str, str] = field(default_factory=dict)
    earlier_keys: Sequence[str] = ()


class ParentRun:
    """The parent run of a command's sweep."""

    def __init__(self, store: Store, sweep: SweepRequest, uploader: Uploader) -> None:
        self._store, self._sweep, self._uploader = store, sweep, uploader
        self._upload: Upload | None = None
        self._known: str | None = None  # found in the store, and unchanged there unless runs train

    def claim(self) -> None:
        """Continue the sweep's parent run or start one, unless another process works on it."""
        folder = self._own_folder()
        if self._upload is not None or not folder.claim():
            return
        mend(folder)
        is_begun = folder.path.exists()  # its description may be lost
        if not self._sweep.rerun or (is_begun and not folder.exists()):
            of, keys = self._sweep.experiment, (self._sweep.key, *self._sweep.earlier_keys)
            found = filter(None, (resumable.parent(self._store, of, key) for key in keys))
            self._known = self._sweep.run_id or next(found, None)
        if is_begun or self._known is None:
            self._set(folder)

    def claim_runs(self) -> bool:
        """Claim its folder; tell whether this process trains its runs: of two with the same sweep, one does.

        A sweep that is trained again (`rerun`) starts a parent of its own beside another process's.
        """
        return self._upload is not None or self._sweep.rerun or self._own_folder().claim()

    def start(self) -> None:
        """Make sure that a run that is about to train has a parent run."""
        self.claim()
        if self._upload is None:
            folder = self._own_folder()
            # If another process has the folder, it is training the same sweep: start a second parent.
            self._set(folder if folder.claim() else RunFolder(unfinished() / uuid.uuid4().hex))

    @property
    def folder(self) -> RunFolder | None:
        """Its folder, once it exists."""
        return self._upload.folder if self._upload is not None else None

    @property
    def run_id(self) -> str | None:
        """Its MLflow run, once it exists."""
        return self._upload.run_id if self._upload is not None else self._known

    def children(self) -> dict[str, str]:
        """Return its MLflow runs in the store so far, by run key."""
        if self.run_id is None:
            return {}
        experiment_id = self._store.experiment_id(self._sweep.experiment)
        found = self._store.search([experiment_id], f"tags.`mlflow.parentRunId` = '{self.run_id}'")
        return {run.data.tags[RUN_KEY]: run.info.run_id for run in found}

    def end(self, status: Status, owed: Conclusion | None = None) -> None:
        """Set its final status.

        Args:
            owed: what is to be done after its runs' uploads and its own.
        """
        if self._upload is not None:
            if owed is not None:
                self._upload.folder.owe(owed.to_bytes())
            self._uploader.update(self._upload, status=status)

    def _own_folder(self) -> RunFolder:
        keys = (self._sweep.key, *self._sweep.earlier_keys)
        named = [folder_name("sweep", self._store.address, key) for key in keys]
        paths = [unfinished() / name for name in (*named, self._sweep.earlier_folder)]
        folder = RunFolder(next((path for path in paths if path.exists()), paths[0]))
        return folder if folder.is_readable() else RunFolder(unfinished() / uuid.uuid4().hex)

    def _set(self, folder: RunFolder) -> None:
        folder.claim()
        is_new = not folder.exists()
        if is_new:
            description = Description(
                kind="sweep",
                name=self._sweep.name,
                overrides=list(self._sweep.overrides),
                uri=self._store.address,
                experiment=self._sweep.experiment,
                run_id=self._known,
                sweep_key=self._sweep.key,
                labels=dict(self._sweep.labels),
            )
            folder.create(description)
        else:
            folder.begin_again()
        self._upload = self._uploader.add(folder, is_new)
        self._uploader.update(self._upload)
