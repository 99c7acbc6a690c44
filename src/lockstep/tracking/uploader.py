"""The way to the store: what folders of unfinished runs hold gets there, whatever the store does meanwhile.

Training never waits for the store. What can't be delivered stays in its folder, for later.
"""

import logging
import os
import threading
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    INVALID_STATE,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

from lockstep.config.errors import Refused, without_password
from lockstep.data import datasets
from lockstep.recovery.journal import Ended
from lockstep.recovery.run_folder import Description, Folder, folders
from lockstep.results.history import History, Status
from lockstep.tracking.run import Recorded, RecordedRun
from lockstep.tracking.store import DIVERGED, PRUNED_AT, REASON, Store

log = logging.getLogger("lockstep")

RECORD_SECONDS = 1.0
"""A run's metrics go to the store after an epoch, but not more often than this: a short epoch takes less
time than a write."""

PATIENCE_SECONDS = 30.0
"""How long a store that doesn't answer is waited for once all is trained."""

RETRY_SECONDS = 2.0
"""How often it is tried meanwhile."""

HOPELESS = {
    ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE, INVALID_STATE)
}
"""Answers of a store that stay the same however often it is asked."""


@dataclass
class Parcel:
    """A run, or a sweep's parent, on its way.

    Attributes:
        is_new: whether no process can have started its MLflow run yet.
        history: as far as it goes; of a run.
        status, tags: its last one, or None while it goes on, and what is said of it. KILLED runs may go on
            with another command.
        metrics: what was measured of it at its end.
        recorded: the MLflow run, once the store was asked for it.
        news, delivered: how often there was more, and how much of that has arrived.
    """

    folder: Folder
    description: Description
    is_new: bool
    history: History = field(default_factory=History)
    status: Status | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    recorded: Recorded | None = None
    news: int = 0
    delivered: int = 0
    delivered_at: float = -RECORD_SECONDS

    @property
    def has_arrived(self) -> bool:
        return self.delivered == self.news

    @property
    def is_due(self) -> bool:
        waited = time.monotonic() - self.delivered_at >= RECORD_SECONDS
        return not self.has_arrived and (waited or self.status is not None)


class Delivery:
    """Brings parcels to one store, in a thread of its own, the only one that writes to it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parcels: dict[str, Parcel] = {}  # by the name of the folder
        self._changed = threading.Condition()
        self._leaving = False
        self._progress_at = time.monotonic()
        self._trouble = ""
        self._hopeless: set[str] = set()  # names of parcels that the store will not take
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._leaving = True
            self._changed.notify()
        self._thread.join(RETRY_SECONDS)  # it may be waiting for the store

    def add(self, parcel: Parcel) -> None:
        """From now on, the news of a run or a parent."""
        with self._changed:
            self._parcels[parcel.folder.path.name] = parcel

    def news(
        self,
        name: str,
        history: History | None = None,
        status: Status | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
        metrics: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """There is more of the run or parent whose folder has that name."""
        with self._changed:
            parcel = self._parcels[name]
            if history is not None:
                parcel.history = copy(history)
                parcel.history.evaluations = list(history.evaluations)
                parcel.history.marks = list(history.marks)
            parcel.status, parcel.tags = status or parcel.status, tags or parcel.tags
            parcel.metrics = metrics or parcel.metrics
            if status is not None and parcel.description.kind == "sweep":
                parcel.description.status = status  # a run's is in its journal
                parcel.folder.write(parcel.description)
            parcel.news += 1
            self._changed.notify()

    def take_over(self, folder: Folder) -> None:
        """Bring what a process that is gone has left of a run or a parent, which this one has claimed.

        A run that had not ended, or a parent whose status isn't known, is KILLED, and may go on later.
        """
        if not folder.exists():  # somebody else has brought it meanwhile
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
        if description.uri == self._store.address and (status or (is_known and not description.closed)):
            self.add(Parcel(folder, description, False))
            self.news(folder.path.name, history, status or "KILLED", tags, metrics)
            return
        if description.kind == "single" and not is_known:
            folder.remove()
        folder.release()

    def wait(self, patience: float = PATIENCE_SECONDS) -> list[Parcel]:
        """Wait until all has arrived, or none has for `patience` seconds; returns what has not."""
        with self._changed:
            self._progress_at = time.monotonic()
            while left := [parcel for parcel in self._parcels.values() if not parcel.has_arrived]:
                waited = time.monotonic() - self._progress_at
                if waited >= patience or all(parcel.folder.path.name in self._hopeless for parcel in left):
                    return left
                self._changed.wait(min(0.1, patience - waited))
        return []

    @property
    def trouble(self) -> str:
        """The store's last answer, where it was not what it should be."""
        return self._trouble

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._leaving:
                    return
                due = [parcel for parcel in self._parcels.values() if self._may_go(parcel)]
                if not due:
                    self._changed.wait(0.1)
                    continue
            for parcel in due:
                if self._leaving:
                    return
                if not self._tried(parcel):
                    time.sleep(RETRY_SECONDS)
                    break

    def _may_go(self, parcel: Parcel) -> bool:
        """Whether it is time; a parent's end comes after its runs' news."""
        name = parcel.folder.path.name
        if not parcel.is_due or name in self._hopeless:
            return False
        return parcel.status is None or not any(
            run.description.parent == name and not run.has_arrived and other not in self._hopeless
            for other, run in self._parcels.items()
        )

    def _tried(self, parcel: Parcel) -> bool:
        """Bring what there is; False where the store is to be left alone for a while."""
        with self._changed:
            news, history, status, tags = parcel.news, parcel.history, parcel.status, parcel.tags
        try:
            self._deliver(parcel, history, status, tags)
        except Exception as error:
            answer = without_password(str(error).strip().partition("\n")[0]) or repr(error)
            with self._changed:
                if isinstance(error, MlflowException) and error.error_code in HOPELESS:
                    self._hopeless.add(parcel.folder.path.name)
                    log.error("%s: the store does not take it: %s", parcel.description.name, answer)
                elif not self._trouble:
                    log.warning("the store can't be written, training goes on meanwhile: %s", answer)
                self._trouble = answer
            return parcel.folder.path.name in self._hopeless
        with self._changed:
            parcel.delivered = news
            parcel.delivered_at = self._progress_at = time.monotonic()
            if self._trouble and not self._hopeless:
                log.warning("the store can be written again")
                self._trouble = ""
            if status is not None:
                del self._parcels[parcel.folder.path.name]
            self._changed.notify()
        if status is not None:
            parcel.folder.release()
        return True

    def _deliver(
        self, parcel: Parcel, history: History, status: Status | None, tags: Mapping[str, str]
    ) -> None:
        recorded, folder, description = self._recorded(parcel), parcel.folder, parcel.description
        if isinstance(recorded, RecordedRun):
            if folder.journal.path.exists():
                folder.journal.sync()  # before the store knows of it, or it might know more after a power cut
            recorded.record(history, last=status not in (None, "KILLED"), at_end=parcel.metrics)
        if status is None:
            return
        if description.kind != "sweep" and folder.artifacts.exists() and status != "KILLED":
            assert isinstance(recorded, RecordedRun)
            recorded.artifacts(folder.artifacts)
        recorded.end(status, tags)
        if status != "KILLED" or description.kind == "single":
            folder.remove()
        else:
            with self._changed:  # the other thread may write it, too
                description.closed = True
                folder.write(description)

    def _recorded(self, parcel: Parcel) -> Recorded:
        """The MLflow run of a parcel: the one it has, wherever its id was lost, or a new one."""
        if parcel.recorded is not None:
            return parcel.recorded
        store, folder, description = self._store, parcel.folder, parcel.description
        run_id = description.run_id
        if run_id is None and not parcel.is_new:
            run_id = store.find(description.experiment, description.token)
        if run_id is not None and not store.is_there(run_id):
            run_id = None  # deleted by somebody
        config = description.run_config(store.uri) if description.kind != "sweep" else None
        if config is None and run_id is None:
            parcel.recorded = store.start_sweep(
                description.experiment, description.name, description.overrides, description.token
            )
        elif config is None:
            assert run_id is not None
            parcel.recorded = store.resume_sweep(run_id)
        else:
            dataset = datasets.load(config.data)
            if run_id is None:
                parcel.recorded = store.start_run(
                    config,
                    dataset,
                    description.name,
                    description.overrides,
                    self._parent_of(folder, description),
                    description.token,
                )
            else:
                parcel.recorded = store.resume_run(run_id, config, dataset)
        with self._changed:  # the other thread may write it, too
            description.run_id, description.closed = parcel.recorded.run_id, False
            folder.write(description)
        return parcel.recorded

    def _parent_of(self, folder: Folder, description: Description) -> str | None:
        if description.parent is None:
            return None
        if parcel := self._parcels.get(description.parent):
            return self._recorded(parcel).run_id
        parent = Folder(folder.path.parent / description.parent)
        return parent.read().run_id if parent.exists() else None


def conclusion(history: History, ended: Ended) -> tuple[Status, dict[str, str]]:
    """A run's last status, and tags that say why."""
    if ended.reason:
        return "FAILED", {REASON: ended.reason}
    if history.diverged_at is not None:
        return "FAILED", {REASON: f"{DIVERGED}the loss was not finite at iteration {history.diverged_at}"}
    return "FINISHED", {} if ended.pruned_at is None else {PRUNED_AT: str(ended.pruned_at)}


def deliver(root: Path) -> list[str]:
    """Bring what lies in `root`, or is `root`, to the stores that it is meant for.

    Returns:
        What could not be brought, and why, a line each; nothing of it is lost.
    """
    left = []
    of_store: dict[str, list[Folder]] = {}
    for folder in folders(root):
        of_store.setdefault(folder.read().uri, []).append(folder)
    for address, of_it in of_store.items():
        typed = os.environ.get("MLFLOW_TRACKING_URI", "")
        try:
            store = Store(typed if without_password(typed) == address else address)
        except Refused as refused:
            left.append(f"{refused}\n  (a password is given with the address, as MLFLOW_TRACKING_URI)")
            continue
        delivery = Delivery(store)
        for folder in of_it:
            if folder.claim():
                delivery.take_over(folder)
            else:
                left.append(f"{folder.path}: a command is at work on it")
        with delivery:
            left += [f"{parcel.folder.path}: {delivery.trouble}" for parcel in delivery.wait()]
    return left
