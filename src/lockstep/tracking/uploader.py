"""Uploads run folders to a store, in a thread: training never waits for the store.

Results that the store doesn't take stay in their folders, and are uploaded later.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType, TracebackType
from typing import Self

from lockstep.recovery.mending import mend
from lockstep.recovery.run_folder import RunFolder, is_of_folders
from lockstep.recovery.seal import Unreadable
from lockstep.results.history import History, Status
from lockstep.tracking.errors import is_outage
from lockstep.tracking.patience import PATIENCE_SECONDS, RETRY_SECONDS
from lockstep.tracking.run import Recorded, RecordedRun
from lockstep.tracking.store import Store
from lockstep.tracking.upload import IN_A_ROW, IN_HASTE, Snapshot, Upload, left_in, names
from lockstep.tracking.whole_runs import MOST, is_whole, record_all

log = logging.getLogger("lockstep")

SAY_SECONDS = 5.0
"""The time between two lines that say what is waited for."""

LEAVE_SECONDS = 2.0
"""How long the command's end waits for the answer to an attempt that nothing depends on any more."""


class Uploader:
    """Uploads to one store. Its thread is the only one that writes runs there."""

    def __init__(self, store: Store) -> None:
        # The store, the condition and the thread stay; the others change under the condition's lock.
        self._store = store
        self._uploads: dict[str, Upload] = {}  # by the name of the folder
        self._pending: dict[str, Upload] = {}  # those of which the store lacks something
        self._changed = threading.Condition()
        self._is_leaving = False
        self._is_trying = False  # whether the store was asked, and has not answered yet
        self._progress_at = 0.0  # when the store got something, or `wait` began
        self._succeeded_at = self._paused_until = 0.0
        self._is_away = False  # whether it was said that the store doesn't answer
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
        self._thread.join(LEAVE_SECONDS)

    def add(self, folder: RunFolder, is_new: bool, is_own: bool = True, n_journaled: int = 0) -> Upload:
        """Add a claimed folder. Each `update` of it is uploaded from now on.

        Args:
            is_own: whether the command fails if it can't be uploaded.
            n_journaled: the iterations that its journal has.

        Raises:
            Unreadable: if the folder is.
        """
        upload = Upload(folder, folder.read(), is_new, is_own, n_journaled)
        with self._changed:
            self._uploads[upload.name] = upload
            self._pending.pop(upload.name, None)  # of the same folder, see `_succeed`
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
            upload.now = upload.now.changed(history, status, tags, metrics)
            if status is not None and upload.description.kind == "sweep":
                # A run's is in its journal.
                upload.description.status, upload.description.closed = status, False
                upload.folder.write(upload.description)
            self._pending[upload.name] = upload
            if upload.is_due:
                self._changed.notify()

    def adopt(self, folder: RunFolder, is_own: bool = False) -> None:
        """Queue a claimed folder that a dead process left.

        If the run has not ended, or the parent has no status, it becomes KILLED. It may resume later.

        Raises:
            Unreadable: if the folder is.
        """
        if not folder.exists():  # another process has uploaded it meanwhile
            folder.release()
            return
        with folder.in_training():  # its worker may outlive it by a moment
            mend(folder)
        if not folder.exists():  # its description was damaged
            folder.release()
            return
        description = folder.read()
        found = left_in(folder, description)
        is_known = description.kind == "sweep" or bool(found.history.marks) or found.status is not None
        is_ended = found.status is not None and description.kind != "sweep"  # a sweep's comes before it owes
        is_news = is_ended or (is_known and not description.closed)
        if description.uri == self._store.address and is_news:
            upload = self.add(folder, False, is_own, len(found.history.loss_T))
            self.update(upload, found.history, found.status or "KILLED", found.tags, found.metrics)
            return
        if description.kind == "single" and (description.closed or not is_known):
            folder.remove()
        folder.release()

    def wait(self, patience: float | None = None, in_haste: bool = False) -> list[Upload]:
        """Wait until nothing is pending, or nothing reaches the store for `patience` seconds.

        An upload that the store refuses isn't waited for, nor one of an earlier command that failed once.

        Args:
            patience: None for PATIENCE_SECONDS.
            in_haste: say nothing, and wait for a request that is not answered IN_HASTE times as long only.

        Returns:
            The command's own uploads that are still pending.
        """
        with self._changed:
            longest = PATIENCE_SECONDS if patience is None else patience
            self._progress_at = said_at = time.monotonic()
            while awaited := [upload for upload in self._pending.values() if upload.is_awaited]:
                now = time.monotonic()
                idle = now - self._progress_at
                if idle >= longest and (not self._is_trying or (in_haste and idle >= IN_HASTE * longest)):
                    break
                if now - said_at >= SAY_SECONDS and not in_haste:
                    said_at = now
                    log.info("waiting for the store, which still lacks %s", names(awaited))
                self._changed.wait(0.1)
            return [upload for upload in self._pending.values() if upload.is_own]

    @property
    def left(self) -> list[Upload]:
        """What earlier commands left and the store did not take either."""
        with self._changed:
            return [upload for upload in self._uploads.values() if not upload.is_own and upload.trouble]

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._is_leaving:
                    return
                due = [upload for upload in self._pending.values() if self._may_go(upload)]
                if not due or time.monotonic() < self._paused_until:
                    self._changed.wait(0.1)
                    continue
            whole, others = ([up for up in due if is_whole(up) is wanted] for wanted in (True, False))
            if whole and not self._try_whole(whole[:MOST]):
                continue
            # The one that waits longest goes first: an upload that always fails doesn't hold up the others.
            for upload in sorted(others, key=lambda upload: upload.tried_at)[:IN_A_ROW]:
                if self._is_leaving or not self._try(upload):
                    break

    def _may_go(self, upload: Upload) -> bool:
        """Tell whether an upload is due. A parent's end is uploaded after its runs."""
        if not upload.is_due:
            return False
        is_end = upload.description.kind == "sweep" and upload.now.status is not None
        return not is_end or not any(
            run.description.parent == upload.name and run.is_awaited for run in self._pending.values()
        )

    def _try(self, upload: Upload) -> bool:
        """Upload the current state; return False if the store needs a pause."""
        now, tried_before, upload.tried_at = upload.now, upload.tried_at, time.monotonic()
        self._is_trying = True
        try:
            self._upload(upload, now)
        except Exception as error:
            return self._fail(upload, error, tried_before)
        finally:
            self._is_trying = False
        return self._succeed(upload, now)

    def _try_whole(self, uploads: Sequence[Upload]) -> bool:
        """Record runs that have ended as a whole; return False if the store needs a pause."""
        self._is_trying = True
        results = record_all(self._store, uploads, self._parent_of)
        self._is_trying = False
        ended = [self._succeed(up, now) if e is None else self._fail(up, e, at) for up, now, at, e in results]
        return all(ended)

    def _succeed(self, upload: Upload, now: Snapshot) -> bool:
        with self._changed:
            upload.succeed(now.version)
            self._progress_at = self._succeeded_at = time.monotonic()
            if self._is_away:
                log.warning("the store can be written again")
            self._is_away = False
            # A search's last runs are added after `adopt`: the folder may have a newer upload.
            is_over = now.status is not None and self._uploads[upload.name] is upload
            if is_over:
                del self._uploads[upload.name]
            if not upload.is_pending and self._pending.get(upload.name) is upload:
                del self._pending[upload.name]
            if not self._pending:
                self._changed.notify()
        upload.folder.note_trouble("")
        if is_over and not upload.folder.owes:
            upload.folder.release()
        return True

    def _fail(self, upload: Upload, error: Exception, tried_before: float) -> bool:
        """Note a failed attempt; return False if the store needs a pause."""
        # An error that comes again though the store took others meanwhile is the upload's own.
        is_its_own = not is_outage(error) or bool(upload.trouble and self._succeeded_at > tried_before)
        with self._changed:
            is_first = not upload.trouble
            upload.fail(error, is_its_own, RETRY_SECONDS)
            if upload.is_refused and upload.is_own and is_first:
                what = "its folder can't be used" if is_of_folders(error) else "the store rejects it"
                log.error("%s: %s: %s", upload.description.name, what, upload.trouble)
            elif not is_its_own and not self._is_away:
                log.warning("the store can't be written, training continues meanwhile: %s", upload.trouble)
                self._is_away = True
            if not is_its_own:
                self._paused_until = time.monotonic() + RETRY_SECONDS
        upload.folder.note_trouble(upload.trouble)
        return is_its_own

    def _advance(self) -> None:
        self._progress_at = time.monotonic()

    def _upload(self, upload: Upload, now: Snapshot) -> None:
        recorded, folder, description = self._recorded(upload), upload.folder, upload.description
        if isinstance(recorded, RecordedRun):
            folder.journal.sync()  # first: after a power cut the store must not know more
            recorded.record(now.history, last=now.status not in (None, "KILLED"), at_end=now.metrics)
        if now.status is None:
            return
        if description.kind != "sweep" and folder.artifacts.exists() and now.status != "KILLED":
            recorded.artifacts(folder.artifacts, self._advance)
        recorded.end(now.status, now.tags)
        if (now.status != "KILLED" or description.kind == "single") and not folder.owes:
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
        if run_id is None:
            with self._changed:
                upload.folder.write(description)  # synced, with the token that finds the run
        recorded = (
            store.resume(run_id, description, upload.n_journaled)
            if run_id is not None
            else store.start(description, self._parent_of(upload))
        )
        self._advance()
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
        with suppress(Unreadable):
            return folder.read().run_id if folder.exists() else None
        return None
