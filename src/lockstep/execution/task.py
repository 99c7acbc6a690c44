"""Runs that train as one array, in whichever process: from their folders' checkpoints to their artifacts."""

import errno
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch

from lockstep.config.schema import RunConfig
from lockstep.data.datasets import Dataset
from lockstep.pictures import representations
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import RunFolder
from lockstep.results.history import Epoch
from lockstep.training import artifacts, checkpoint
from lockstep.training.checkpoint import Checkpoint
from lockstep.training.loop import TrainedRun, train

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk, or a limit on files, is called: it fails the sweep, not a run."""

Tell = Callable[[int, Event], object]


@dataclass(frozen=True)
class Task:
    """Runs to be trained as one array.

    Attributes:
        jobs: what the runs are called in events.
        configs, names: theirs.
        folders: each run's, see RunFolder.
        digest: of the data set that they share.
        shared: where what is the same for all runs on a data set is drawn.
        pause_at: epochs after which they stop with a checkpoint; None trains them to their end.
    """

    jobs: tuple[int, ...]
    configs: tuple[RunConfig, ...]
    names: tuple[str, ...]
    folders: tuple[Path, ...]
    digest: str
    shared: Path
    threads: int
    exact: bool
    pause_at: int | None = None

    def of(self, which: Sequence[int]) -> "Task":
        """Some of the runs, by position."""
        return replace(
            self,
            jobs=tuple(self.jobs[k] for k in which),
            configs=tuple(self.configs[k] for k in which),
            names=tuple(self.names[k] for k in which),
            folders=tuple(self.folders[k] for k in which),
        )


def train_task(task: Task, dataset: Dataset, tell: Tell) -> None:
    """Train runs until they pause or end, and write each one's artifacts as soon as it ends.

    Those that go on after the same number of epochs train together.

    Args:
        tell: called with a run's job and what became of it, once that is in its journal.

    Raises:
        OSError: where there is no room left to write (see NO_ROOM). Other errors end the runs they concern.
    """
    with ExitStack() as stack:
        for path in task.folders:
            stack.enter_context(RunFolder(path).in_training())
        _train_alone(task, dataset, tell)


def _train_alone(task: Task, dataset: Dataset, tell: Tell) -> None:
    folders = [RunFolder(path) for path in task.folders]
    for folder in folders:
        folder.journal.mend()
    checkpoints = [_checkpoint(folder) for folder in folders]
    done = [checkpoint.history.epochs if checkpoint else 0 for checkpoint in checkpoints]
    order = sorted(range(len(done)), key=done.__getitem__)
    for _, which in groupby(order, key=done.__getitem__):
        together = list(which)
        _train_together(task.of(together), [checkpoints[k] for k in together], dataset, tell)


def _train_together(
    task: Task, checkpoints: Sequence[Checkpoint | None], dataset: Dataset, tell: Tell
) -> None:
    runs = [
        _Written(folder, job, tell, task.pause_at)
        for folder, job in zip(map(RunFolder, task.folders), task.jobs, strict=True)
    ]

    def after_epoch(k: int, run: TrainedRun, epoch: Epoch) -> None:
        runs[k].add(run, epoch)
        if run.has_ended:
            runs[k].end(run, dataset, task.names[k], task.shared)

    try:
        train(task.configs, dataset, after_epoch, task.threads, task.exact, checkpoints, task.pause_at)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        left = [k for k, run in enumerate(runs) if not run.is_over]
        if _is_out_of_memory(error) and len(left) > 1:
            half = len(left) // 2
            for part in (left[:half], left[half:]):
                _train_alone(task.of(part), dataset, tell)
            return
        for k in left:
            runs[k].tell(Ended(reason_of(error), traceback.format_exc()))


class _Written:
    """A run on its way into its folder."""

    def __init__(self, folder: RunFolder, job: int, tell: Tell, pause_at: int | None) -> None:
        self._folder, self._job, self._tell, self._pause_at = folder, job, tell, pause_at
        self._journaled = len(folder.history()[0].marks)
        self._saved_at = time.monotonic()
        self.is_over = False  # ended, or paused

    def tell(self, event: Event) -> None:
        """Into the journal first, then to whom it concerns."""
        self._folder.journal.append(event)
        self.is_over = isinstance(event, Ended)
        self._tell(self._job, event)

    def add(self, run: TrainedRun, epoch: Epoch) -> None:
        """An epoch, if it isn't one that was trained again to get back to where the journal ends."""
        if len(run.history.marks) > self._journaled:
            self.tell(epoch)
        if run.has_ended:
            return
        self.is_over = run.history.epochs == self._pause_at
        waited = time.monotonic() - self._saved_at
        if self.is_over or waited >= run.config.trainer.checkpoint_seconds:
            self._folder.save(run.history.epochs, checkpoint.to_bytes(run.state()))
            self._saved_at = time.monotonic()

    def end(self, run: TrainedRun, dataset: Dataset, name: str, shared: Path) -> None:
        """Its artifacts, then its end."""
        end = Ended()
        try:
            if run.history.diverged_at is None:
                end = Ended(metrics=representations.separation(run.network, dataset))
            shutil.rmtree(self._folder.artifacts, ignore_errors=True)
            self._folder.artifacts.mkdir()
            artifacts.write_run(run, self._folder.artifacts)
            if run.config.tracking.pictures == "all":
                from lockstep.pictures import run_pictures  # here, as it loads all that draws

                run_pictures.draw_run(run, dataset, name, self._folder.artifacts, shared)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            end = Ended(reason_of(error), traceback.format_exc())
        self.tell(end)


def _checkpoint(folder: RunFolder) -> Checkpoint | None:
    saved = folder.checkpoint()
    return None if saved is None else Checkpoint(saved[0], checkpoint.from_bytes(saved[1]))


def reason_of(error: BaseException) -> str:
    """An error in a line."""
    first_line = (str(error).splitlines() or [""])[0]  # torch's errors go on with frames of C++
    return f"{type(error).__name__}: {first_line}"


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
