"""Uploads run folders to a store, in a thread: training never waits for the store.

Results that the store doesn't take stay in their folders, and are uploaded later.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType, TracebackType
from typing import Self

from mlflow.exceptions import MlflowException

from lockstep.config.errors import without_password
from lockstep.recovery.run_folder import Description, RunFolder
from lockstep.results.history import History, Status
from lockstep.tracking.run import Recorded, RecordedRun
from lockstep.tracking.store import Store
from lockstep.tracking.tags import conclusion

log = logging.getLogger("lockstep")

RECORD_SECONDS = 1.0
"""A run's metrics are uploaded after an epoch, at most this often: a short epoch takes less time than a
write."""

PATIENCE_SECONDS = 30.0
"""How long a store that doesn't answer is waited for once all is trained."""

RETRY_SECONDS = 2.0
"""The time between two attempts."""

PERMANENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE"}
"""Error codes of a store that stay the same however often it is asked."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a run or a parent at one moment.

    Attributes:
        version: how often it has changed.
        history: of a run, as far as it goes.
        status: the last one, or None while it trains. A later command may resume a KILLED run.
        tags, metrics: set at the end.
    """

    version: int = 0
    history: History = field(default_factory=History)
    status: Status | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Upload:
    """A run, or a sweep's parent, and its state in the store.

    Attributes:
        is_new: whether no process can have started its MLflow run yet.
        recorded: the MLflow run, once the store was asked for it.
        uploaded: the version that the store has.
        is_rejected: whether the store will never take it.
    """

    folder: RunFolder
    description: Description
    is_new: bool
    now: Snapshot = field(default_factory=Snapshot)
    recorded: Recorded | None = None
    uploaded: int = 0
    uploaded_at: float = -RECORD_SECONDS
    is_rejected: bool = False

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.path.name

    @property
    def is_pending(self) -> bool:
        """Whether the store lacks its latest version."""
        return self.uploaded != self.now.version

    @property
    def is_due(self) -> bool:
        """Whether it is time to upload it."""
        waited = time.monotonic() - self.uploaded_at >= RECORD_SECONDS
        return self.is_pending and not self.is_rejected and (waited or self.now.status is not None)

    @property
    def run_id(self) -> str | None:
        """The id of the MLflow run, None before it is started."""
        return self.recorded.run_id if self.recorded is not None else self.description.run_id


class Uploader:
    """Uploads to one store. Its thread is the only one that writes runs there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uploads: dict[str, Upload] = {}  # by the name of the folder
        self._changed = threading.Condition()
        self._is_leaving = False
        self._progress_at = time.monotonic()
        self._trouble = ""
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_leaving = True
            self._changed.notify()
        self._thread.join(RETRY_SECONDS)  # it may be waiting for the store

    def add(self, folder: RunFolder, is_new: bool) -> Upload:
        """Add a claimed folder. Each `update` of it is uploaded from now on."""
        upload = Upload(folder, folder.read(), is_new)
        with self._changed:
            self._uploads[upload.name] = upload
        return upload

    def update(
        self,
        upload: Upload,
        history: History | None = None,
        status: Status | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
        metrics: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Queue the new state of a run or parent."""
        with self._changed:
            now = upload.now
            if history is not None:
                history = replace(history, evaluations=[*history.evaluations], marks=[*history.marks])
            upload.now = Snapshot(
                now.version + 1,
                history or now.history,
                status or now.status,
                tags or now.tags,
                metrics or now.metrics,
            )
            if status is not None and upload.description.kind == "sweep":
                upload.description.status = status  # a run's is in its journal
                upload.folder.write(upload.description)
            self._changed.notify()

    def adopt(self, folder: RunFolder) -> None:
        """Queue a claimed folder that a dead process left.

        If the run has not ended, or the parent has no status, it becomes KILLED. It may resume later.
        """
        if not folder.exists():  # another process has uploaded it meanwhile
            folder.release()
            return
        description, history, tags, metrics = folder.read(), History(), dict[str, str](), dict[str, float]()
        status: Status | None = None
        if description.kind == "sweep":
            status = None if description.status == "KILLED" else description.status
        else:
            with folder.in_training():  # its worker may outlive it by a moment
                history, ended = folder.history()
            if ended is not None:
                (status, tags), metrics = conclusion(history, ended), ended.metrics
        is_known = description.kind == "sweep" or bool(history.marks) or status is not None
        is_news = status is not None or (is_known and not description.closed)
        if description.uri == self._store.address and is_news:
            self.update(self.add(folder, is_new=False), history, status or "KILLED", tags, metrics)
            return
        if description.kind == "single" and not is_known:
            folder.remove()
        folder.release()

    def wait(self, patience: float = PATIENCE_SECONDS) -> list[Upload]:
        """Wait until nothing is pending, or no upload succeeds for `patience` seconds.

        Returns:
            Uploads that are still pending.
        """
        with self._changed:
            self._progress_at = time.monotonic()
            while pending := [upload for upload in self._uploads.values() if upload.is_pending]:
                waited = time.monotonic() - self._progress_at
                if waited >= patience or all(upload.is_rejected for upload in pending):
                    return pending
                self._changed.wait(min(0.1, patience - waited))
        return []

    @property
    def trouble(self) -> str:
        """The store's last error, empty where it takes everything."""
        return self._trouble

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._is_leaving:
                    return
                due = [upload for upload in self._uploads.values() if self._may_go(upload)]
                if not due:
                    self._changed.wait(0.1)
                    continue
            for upload in due:
                if self._is_leaving:
                    return
                if not self._try(upload):
                    time.sleep(RETRY_SECONDS)
                    break

    def _may_go(self, upload: Upload) -> bool:
        """Tell whether an upload is due. A parent's end is uploaded after its runs."""
        if not upload.is_due:
            return False
        return upload.now.status is None or not any(
            run.description.parent == upload.name and run.is_pending and not run.is_rejected
            for run in self._uploads.values()
        )

    def _try(self, upload: Upload) -> bool:
        """Upload the current state; return False if the store needs a pause."""
        now = upload.now
        try:
            self._upload(upload, now)
        except Exception as error:
            answer = without_password(str(error).strip().partition("\n")[0]) or repr(error)
            with self._changed:
                upload.is_rejected = isinstance(error, MlflowException) and error.error_code in PERMANENT
                if upload.is_rejected:
                    log.error("%s: the store rejects it: %s", upload.description.name, answer)
                elif not self._trouble:
                    log.warning("the store can't be written, training continues meanwhile: %s", answer)
                self._trouble = answer
            return upload.is_rejected
        with self._changed:
            upload.uploaded = now.version
            upload.uploaded_at = self._progress_at = time.monotonic()
            if self._trouble and not any(other.is_rejected for other in self._uploads.values()):
                log.warning("the store can be written again")
                self._trouble = ""
            if now.status is not None:
                del self._uploads[upload.name]
            self._changed.notify()
        if now.status is not None:
            upload.folder.release()
        return True

    def _upload(self, upload: Upload, now: Snapshot) -> None:
        recorded, folder, description = self._recorded(upload), upload.folder, upload.description
        if isinstance(recorded, RecordedRun):
            if folder.journal.path.exists():
                folder.journal.sync()  # first: after a power cut the store must not know more
            recorded.record(now.history, last=now.status not in (None, "KILLED"), at_end=now.metrics)
        if now.status is None:
            return
        if description.kind != "sweep" and folder.artifacts.exists() and now.status != "KILLED":
            recorded.artifacts(folder.artifacts)
        recorded.end(now.status, now.tags)
        if now.status != "KILLED" or description.kind == "single":
            folder.remove()
        else:
            with self._changed:  # the other thread may write it, too
                description.closed = True
                folder.write(description)

    def _recorded(self, upload: Upload) -> Recorded:
        """Return its MLflow run: the one it has, wherever its id was lost, or a new one."""
        if upload.recorded is not None:
            return upload.recorded
        store, description = self._store, upload.description
        run_id = description.run_id
        if run_id is None and not upload.is_new:
            run_id = store.find(description.experiment, description.token)
        if run_id is not None and not store.is_active(run_id):
            run_id = None  # deleted in the store
        recorded = (
            store.resume(run_id, description)
            if run_id is not None
            else store.start(description, self._parent_of(upload))
        )
        with self._changed:  # the other thread may write it, too
            upload.recorded = recorded
            description.run_id, description.closed = recorded.run_id, False
            upload.folder.write(description)
        return recorded

    def _parent_of(self, upload: Upload) -> str | None:
        name = upload.description.parent
        if name is None:
            return None
        if parent := self._uploads.get(name):
            return self._recorded(parent).run_id
        folder = RunFolder(upload.folder.path.parent / name)
        return folder.read().run_id if folder.exists() else None
