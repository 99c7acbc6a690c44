"""What becomes of the runs of a command → the store, the terminal, their outcomes."""

import logging
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from lockstep import data, models
from lockstep.interrupts import deferred
from lockstep.plan import Job
from lockstep.report import Outcome
from lockstep.terminal import Progress
from lockstep.tracking import RecordedRun, Store
from lockstep.train import Epoch, History, Status, TrainedRun, generator
from lockstep.workers import Ended, Event

log = logging.getLogger("lockstep")

RECORD_SECONDS = 1.0
"""A run's metrics go to the store after an epoch, but not more often than this: a short epoch takes less
time than a write."""


class Recorder:
    """Hears of each run's epochs and end, in whatever order, and records them.

    A run appears in the store with its first news, so that a large sweep starts to train at once.

    Args:
        jobs, names: the runs.
        shared: where each run's artifacts are written, in a folder named by its number.
        parent: the MLflow run of the sweep, if it is one.
    """

    def __init__(
        self,
        store: Store,
        jobs: Sequence[Job],
        names: Sequence[str],
        shared: Path,
        parent: str | None,
        progress: Progress,
    ) -> None:
        self._store, self._jobs, self._names = store, jobs, names
        self.shared, self._parent, self._progress = shared, parent, progress
        self._recorded: dict[int, RecordedRun] = {}
        self._recorded_at: dict[int, float] = {}
        self._histories = [History() for _ in jobs]
        self._outcomes: dict[int, Outcome] = {}
        self._best: int | None = None

    def folder(self, job: int) -> Path:
        """Where a run's artifacts are written."""
        folder = self.shared / str(job)
        folder.mkdir(exist_ok=True)
        return folder

    @deferred()
    def hear(self, job: int, event: Event) -> None:
        """Record an epoch of a run, or its end. What goes wrong meanwhile makes this run FAILED."""
        if job in self._outcomes:
            return
        try:
            if isinstance(event, Epoch):
                self._epoch(job, event)
            else:
                self._end(job, event)
        except Exception as error:
            log.exception("%s failed", self._names[job])
            self._conclude(job, "FAILED", f"{type(error).__name__}: {error}")

    def __enter__(self) -> Self:
        return self

    @deferred()
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Runs that have started and not ended are KILLED."""
        for job, recorded in self._recorded.items():
            if job not in self._outcomes:
                recorded.record(self._histories[job])
                recorded.end("KILLED")

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of the runs that have ended, in the order of the jobs."""
        return [self._outcomes[job] for job in sorted(self._outcomes)]

    @deferred()
    def draw_best(self) -> None:
        """Where only the best run's pictures are wanted, draw them now; if that fails, so has the run."""
        if self._best is None:
            return
        try:
            self._draw(self._best)
        except Exception as error:
            log.exception("%s failed", self._names[self._best])
            self._conclude(self._best, "FAILED", f"{type(error).__name__}: {error}")

    def _draw(self, index: int) -> None:
        """Draw a run's pictures from the weights that it left."""
        from lockstep import artifacts  # see workers

        job, folder = self._jobs[index], self.folder(index)
        dataset = data.load(job.config.data)
        network = models.build(
            job.config.model, dataset.n_features, dataset.n_classes, generator(job.config.seed, "init")
        )
        weights = torch.load(folder / "model" / "state_dict.pt", weights_only=True)
        network.to(next(iter(weights.values())).dtype).load_state_dict(weights)
        run = TrainedRun(job.config, network, self._histories[index])
        artifacts.draw_run(run, dataset, self._names[index], folder, self.shared)
        self._recorded[index].artifacts(folder)

    def _of(self, job: int) -> RecordedRun:
        if job not in self._recorded:
            config, overrides = self._jobs[job].config, self._jobs[job].overrides
            self._recorded[job] = self._store.start_run(
                config, data.load(config.data), self._names[job], overrides, self._parent
            )
        return self._recorded[job]

    def _epoch(self, job: int, epoch: Epoch) -> None:
        history, recorded, config = self._histories[job], self._of(job), self._jobs[job].config
        history.add(epoch)
        ends = epoch.diverged or history.epochs == config.trainer.epochs  # which records what is left
        if not ends and time.monotonic() - self._recorded_at.get(job, -math.inf) > RECORD_SECONDS:
            recorded.record(history)
            self._recorded_at[job] = time.monotonic()
        self._progress.epoch(self._names[job], config, history)

    def _end(self, job: int, ended: Ended) -> None:
        history, recorded = self._histories[job], self._of(job)
        recorded.record(history, last=True)
        pictures = self._jobs[job].config.tracking.pictures
        folder = self.folder(job)
        recorded.artifacts(folder)
        if ended.reason:
            log.error("%s failed\n%s", self._names[job], ended.trace)
            self._conclude(job, "FAILED", ended.reason)
        elif history.diverged_at is not None:
            reason = f"diverged: the loss was not finite at iteration {history.diverged_at}"
            self._conclude(job, "FAILED", reason)
        else:
            self._conclude(job, "FINISHED")
        # What is in the store needs no second copy, but for weights whose pictures may be wanted.
        obsolete: int | None = job
        if pictures == "best" and self._is_best(job):
            obsolete, self._best = self._best, job
        if obsolete is not None:
            shutil.rmtree(self.folder(obsolete))

    def _is_best(self, job: int) -> bool:
        objective = self._outcomes[job].objective
        best = None if self._best is None else self._outcomes[self._best].objective
        return objective is not None and (best is None or objective > best)

    def _conclude(self, job: int, status: Status, reason: str = "") -> None:
        run_id = self._of(job).run_id
        self._outcomes[job] = Outcome(
            self._jobs[job].config, self._names[job], run_id, status, self._histories[job], reason
        )
        self._recorded[job].end(status, reason)
