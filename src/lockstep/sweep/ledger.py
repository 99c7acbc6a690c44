"""The runs of a command: each run's history, result and upload."""

import logging
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lockstep.config.identity import NUMERICS_VERSION
from lockstep.config.run_request import RunRequest
from lockstep.data import sources
from lockstep.execution.task import Task, TaskRun
from lockstep.recovery.claims import process
from lockstep.recovery.description import Description
from lockstep.recovery.interrupts import deferred
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import REMOVED, SHARED, RunFolder, folders, unfinished
from lockstep.recovery.seal import Unreadable
from lockstep.results import run_files
from lockstep.results.early_stopping import has_ended
from lockstep.results.history import Status
from lockstep.results.run_result import RunResult
from lockstep.sweep import earlier
from lockstep.sweep.conclusion import Conclusion
from lockstep.sweep.entry import Entry
from lockstep.sweep.parent import ParentRun
from lockstep.terminal.console import warn_once
from lockstep.terminal.progress import Progress
from lockstep.tracking import resumable
from lockstep.tracking.patience import patient
from lockstep.tracking.pending import leftover
from lockstep.tracking.recorded_run import result_of
from lockstep.tracking.store import Store
from lockstep.tracking.tags import REASON, conclusion
from lockstep.tracking.uploader import Uploader
from lockstep.training import network_code

log = logging.getLogger("lockstep")

WAIT_SECONDS = 0.5
"""The interval at which runs that another process trains are checked."""


class Ledger:
    """The runs of a command and their states.

    Args:
        parent: None for a run without a sweep, which always trains from its start.
    """

    def __init__(
        self, store: Store, parent: ParentRun | None, uploader: Uploader, progress: Progress
    ) -> None:
        self._store, self._parent = store, parent
        self._uploader, self.progress = uploader, progress
        self._entries: list[Entry] = []
        self._by_folder: dict[Path, Entry] = {}
        self._had_runs: dict[str, bool] = {}  # whether experiments had runs when a search began
        self._has_waited = False

    def add(self, request: RunRequest, name: str, of_search: Sequence[str] = ()) -> Entry:
        """Add a run; the same run again is trained once.

        Args:
            of_search: a trial's study and number, because a run that may be pruned has a folder of its own.
        """
        config = request.config
        data = sources.load(config.data).description
        keys = config.run_keys(data.digest)
        found = earlier.folders(keys, self._store.address, config.tracking.experiment, *of_search)
        path = found.pop(NUMERICS_VERSION).path
        if self._parent is None:
            path, found = unfinished() / f"single-{uuid.uuid4().hex}", {}
        if path not in self._by_folder and not RunFolder(path).is_readable():
            path = unfinished() / uuid.uuid4().hex  # the run is trained anew
        entry = Entry(len(self._entries), request, name, keys, data, RunFolder(path), bool(of_search))
        entry.first = self._by_folder.setdefault(path, entry)
        self._entries.append(entry)
        if entry.first is entry:
            entry.earlier = found
            self.progress.add(entry.number, name, config)
        return entry

    def adopt(self) -> None:
        """Take over from earlier commands: this sweep's parent, and run folders that no process works on."""
        mine = {of.path for entry in self._entries for of in (entry.folder, *entry.earlier.values())}
        if self._parent is not None:
            self._parent.claim()
            mine |= {self._parent.folder.path} if self._parent.folder else set()
        for removed in unfinished().glob(f"*{REMOVED}"):  # a kill came in between
            shutil.rmtree(removed, ignore_errors=True)
        for folder in folders(unfinished()) if unfinished().exists() else ():
            if folder.path not in mine and folder.claim():
                try:
                    self._uploader.adopt(folder)
                except Unreadable as error:
                    folder.release()
                    log.warning("%s", leftover(folder, str(error)))

    def pending(self) -> list[Entry]:
        """Return the runs that have not ended, each once."""
        return [entry for entry in self._entries if entry.first is entry and entry.result is None]

    def claim(self, entries: Iterable[Entry], trains: bool = True) -> list[Entry]:
        """Claim runs; return the runs to train, which neither another process nor the store has.

        See `earlier.claim` for `trains`.
        """
        if self._parent is not None and not self._parent.claim_runs():
            return []
        describe = partial(self._description, is_new=False)
        claimed = [entry for entry in entries if earlier.claim(entry, trains, describe, self._uploader)]
        # Look in the store after claiming: until then another process might still upload a result.
        self._recall_stored([] if self._parent is None else claimed)
        taken = []
        for entry in claimed:
            if entry.result is not None:
                entry.folder.release()
            elif not self._resume(entry):
                taken.append(entry)
        return taken

    def _recall_stored(self, entries: Iterable[Entry]) -> None:
        """Keep the results that the store has already, of runs without a folder."""
        asked: dict[str, list[Entry]] = {}
        have_runs: dict[str, bool] = {}
        for entry in entries:
            experiment = entry.config.tracking.experiment
            # Only this process records a search's trials: one look at its start is enough.
            known = self._had_runs if entry.is_trial else have_runs
            if not entry.folder.exists() and not entry.config.rerun:
                if experiment not in known:
                    known[experiment] = self._store.has_runs(experiment)
                if known[experiment]:
                    asked.setdefault(experiment, []).append(entry)
        for experiment, of_experiment in asked.items():
            for entry, found in earlier.stored(self._store, experiment, of_experiment):
                params, overrides = entry.config.param_texts(), entry.request.overrides
                entry.result = replace(result_of(found), name=entry.name, overrides=overrides, params=params)
                self.progress.end(entry.number, "stored", entry.result.metrics)

    def wait_for_others(self) -> None:
        """Wait a moment for another process, which trains the pending runs."""
        if not self._has_waited:
            pids = {pid for entry in self.pending() if (pid := entry.folder.holder) is not None}
            by = f" ({', '.join(map(process, sorted(pids)))})" if pids else ""
            log.info("%d runs are being trained by another command%s; waiting", len(self.pending()), by)
        self._has_waited = True
        time.sleep(WAIT_SECONDS)

    def _resume(self, entry: Entry) -> bool:
        """Create or resume the run's folder; tell whether its journal says that the run has ended."""
        folder = entry.folder
        is_new = not folder.path.exists()
        if self._parent is not None:
            self._parent.start()
        if not folder.exists():
            folder.create(self._description(entry, is_new))
        entry.history, ended = folder.history()
        entry.upload = self._uploader.add(folder, is_new, n_journaled=len(entry.history.loss_T))
        self.progress.resume(entry.number, entry.history)
        if entry.history.marks:
            self._uploader.update(entry.upload, entry.history)
        if ended is not None:
            self._end(entry, ended)
        return ended is not None

    def _description(self, entry: Entry, is_new: bool) -> Description:
        """Return the description of a run that has none; of one that isn't new, it was damaged."""
        description = entry.description(self._store.address, self._parent.folder if self._parent else None)
        return description if is_new else resumable.resumed(self._store, description, entry.run_key)

    @property
    def shared(self) -> Path | None:
        """The folder of files that runs share while they train; None if no run has to train."""
        folder = self._parent.folder if self._parent else self._entries[0].folder
        if folder is None or not folder.exists():
            return None
        path = folder.path / SHARED
        path.mkdir(exist_ok=True)
        return path

    def task(self, entries: Sequence[Entry], threads: int, exact: bool) -> Task:
        """Return the task of runs that `claim` returned."""
        self.progress.array([entry.number for entry in entries])
        shared = self.shared
        assert shared is not None  # their folders are there
        return Task(
            tuple(TaskRun(entry.number, entry.config, entry.name, entry.folder.path) for entry in entries),
            entries[0].data.digest,
            shared,
            threads,
            exact,
            network_code.needed_by(entry.config for entry in entries),
        )

    def recall(self, entry: Entry, result: RunResult, is_recorded: bool) -> None:
        """Set a run's result from an earlier command, unless its MLflow run was deleted: it trains again.
        The store is asked, unless it `is_recorded`: among those that `recorded` returned."""
        asks = result.is_complete and not is_recorded
        if asks and not (result.run_id and patient(self._store.is_active)(result.run_id)):
            return
        entry.result, entry.version = result, result.numerics_version
        self.progress.end(entry.number, "stored", result.metrics)

    @property
    def parent_run_id(self) -> str | None:
        """The parent's MLflow run, once it exists."""
        return self._parent.run_id if self._parent is not None else None

    def recorded(self) -> dict[str, str]:
        """Return the parent's MLflow runs in the store so far, by run key."""
        if self._parent is None:
            return {}
        self._parent.claim()
        return self._parent.children()

    @deferred()
    def receive(self, number: int, event: Event) -> None:
        """Record an event of a run: an epoch, a part of one, or its end."""
        entry = self._entries[number]
        if isinstance(event, Ended):
            self._end(entry, event)
            return
        entry.history.add(event)
        is_last = has_ended(entry.history, entry.config.trainer)
        if entry.upload is not None and not is_last:  # the run's end uploads its last epoch
            self._uploader.update(entry.upload, entry.history)
        if not event.is_part:
            self.progress.epoch(number, entry.history)

    @deferred()
    def prune(self, entry: Entry, epochs: float) -> None:
        """End a run that paused after these epochs as FINISHED and pruned, and upload its history so far."""
        folder = entry.folder
        shutil.rmtree(folder.artifacts, ignore_errors=True)
        folder.artifacts.mkdir()
        run_files.write_history(entry.config, entry.history, folder.artifacts)
        ended = Ended(pruned_at=epochs, artifacts=folder.artifact_seals())
        folder.journal.append(ended)
        self._end(entry, ended)

    def _end(self, entry: Entry, ended: Ended) -> None:
        status, tags = conclusion(entry.history, ended)
        if ended.reason:
            log.error("%s failed\n%s", entry.name, ended.trace or ended.reason)
        for warning in ended.warnings:
            log.warning("%s: %s", entry.name, warning)
        for warning in ended.library_warnings:
            warn_once(warning)
        entry.history.restored_epoch = ended.restored_epoch
        metrics = {**entry.history.summary(), **ended.metrics}
        epochs = (ended.pruned_at, ended.stopped_at, ended.restored_epoch)
        entry.result = entry.result_as(status, metrics, tags.get(REASON, ""), *epochs)
        stopped = "pruned" if ended.pruned_at else "stopped early" if ended.stopped_at else ""
        self.progress.end(entry.number, stopped or status.lower(), metrics)
        assert entry.upload is not None
        self._uploader.update(entry.upload, entry.history, status, tags, ended.metrics)

    def saved(self) -> str:
        """Say what an interrupted command leaves to the next one. A run without a sweep never resumes."""
        left, n = self.pending(), len(self._by_folder)
        resumed = [entry for entry in left if self._parent is not None and entry.folder.checkpoints()]
        counts = {"a checkpoint": len(resumed), "the start": len(left) - len(resumed)}
        to_train = ", ".join(f"{count} from {where}" for where, count in counts.items() if count)
        return f"{n - len(left)} of {n} runs have ended" + (f"; left to train: {to_train}" if left else "")

    @property
    def ended(self) -> list[Entry]:
        """The entries whose run has ended, in order."""
        return [entry for entry in self._entries if entry.first.result is not None]

    @property
    def results(self) -> list[RunResult]:
        """Their results."""
        return [
            replace(entry.first.result, name=entry.name, run_id=entry.first.run_id)
            for entry in self.ended
            if entry.first.result is not None
        ]

    @deferred()
    def close(self, status: Status, owed: Conclusion | None = None) -> None:
        """End the command: its parent has `status` and runs that have not ended are KILLED.

        Args:
            owed: what is to be done once the store has all of it.
        """
        for entry in self._entries:
            # The store doesn't have runs without an epoch.
            if entry.upload is not None and entry.result is None and entry.history.marks:
                self._uploader.update(entry.upload, entry.history, "KILLED")
        if self._parent is not None:
            self._parent.end(status, owed)
