"""A task, trained in any process: from its runs' checkpoints to their artifacts."""

import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch

from lockstep.data.datasets import Dataset
from lockstep.execution import library_warnings
from lockstep.execution.task import Report, Task, TaskRun, is_no_room, reason_of
from lockstep.pictures import representations
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import RunFolder, kept_weights
from lockstep.results import predictions_file
from lockstep.results.history import Epoch
from lockstep.training import artifacts, checkpoint, network_code
from lockstep.training.checkpoint import Checkpoint
from lockstep.training.loop import TrainedRun, train
from lockstep.training.prediction import predict


def train_task(task: Task, dataset: Dataset, report: Report) -> None:
    """Train runs until they pause or end, and write each run's artifacts as soon as it ends.

    Runs that resume after the same number of iterations train together.

    Args:
        report: called with a run's number and each event, once the event is in the run's journal.

    Raises:
        OSError: if the disk is full (see NO_ROOM). Other errors end the runs that they concern.
    """
    with ExitStack() as stack:
        for run in task.runs:
            stack.enter_context(RunFolder(run.folder).in_training())
        _train_alone(task, dataset, report)


def _train_alone(task: Task, dataset: Dataset, report: Report) -> None:
    network_code.add(task.code)
    by_iterations: dict[int, list[tuple[_Written, Checkpoint | None]]] = {}
    for run in task.runs:
        written = _Written(run, report, task)
        with written.failing():
            checkpoint = written.resume()
            done = checkpoint.history.iterations if checkpoint else 0
            by_iterations.setdefault(done, []).append((written, checkpoint))
    for _, together in sorted(by_iterations.items()):
        _train_together(task, together, dataset, report)


def _train_together(
    task: Task, together: Sequence[tuple["_Written", Checkpoint | None]], dataset: Dataset, report: Report
) -> None:
    runs, checkpoints = [written for written, _ in together], [checkpoint for _, checkpoint in together]

    def after_epoch(k: int, run: TrainedRun, epoch: Epoch) -> bool:
        with runs[k].failing():
            runs[k].add(run, epoch)
            if run.has_ended:
                runs[k].end(run, dataset)
        return runs[k].is_over

    try:
        configs = [written.run.config for written in runs]
        how = (task.threads, task.exact, checkpoints, task.pause_at, task.rungs)
        train(configs, dataset, after_epoch, *how)
    except Exception as error:
        if is_no_room(error):
            raise
        left = [written for written in runs if not written.is_over]
        if _is_out_of_memory(error) and len(left) > 1:
            half = len(left) // 2
            for part in (left[:half], left[half:]):
                _train_alone(task.of(written.run for written in part), dataset, report)
            return
        for written in left:
            written.fail(error)


class _Written:
    """A run that writes its events, checkpoints and artifacts to its folder."""

    def __init__(self, run: TaskRun, report: Report, task: Task) -> None:
        self.run, self._folder, self._report, self._task = run, RunFolder(run.folder), report, task
        self._journaled = 0  # epochs, and parts of some
        self._saved_at = time.monotonic()
        self.is_over = False  # ended, or paused

    def resume(self) -> Checkpoint | None:
        """Return the run's last checkpoint."""
        self._folder.journal.mend()
        self._journaled = len(self._folder.history()[0].marks)
        return _checkpoint(self._folder)

    def report(self, event: Event) -> None:
        """Append an event to the journal, then report it."""
        self._folder.journal.append(event)
        self.is_over = isinstance(event, Ended)
        self._report(self.run.number, event)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Let the run alone fail of what its folder can't take.

        Raises:
            OSError: if the disk is full (see NO_ROOM).
        """
        try:
            yield
        except Exception as error:
            if is_no_room(error):
                raise
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End the run as failed, even if its journal can't be written."""
        ended = Ended(reason_of(error), "".join(traceback.format_exception(error)))
        self.is_over = True
        try:
            self._folder.journal.append(ended)
        except OSError as unwritten:
            if is_no_room(unwritten):
                raise
        self._report(self.run.number, ended)

    def add(self, run: TrainedRun, epoch: Epoch) -> None:
        """Record an epoch or a part unless the journal has it already; save a checkpoint when one is due."""
        if len(run.history.marks) > self._journaled:
            self.report(epoch)
        if run.has_ended:
            return
        self.is_over = run.history.iterations == self._task.pause_at
        waited = time.monotonic() - self._saved_at
        if self.is_over or waited >= run.config.trainer.checkpoint_seconds:
            self._folder.save(len(run.history.marks), checkpoint.to_bytes(run.state(), run.best))
            self._saved_at = time.monotonic()

    def end(self, run: TrainedRun, dataset: Dataset) -> None:
        """Write the run's artifacts, then record its end."""
        shutil.rmtree(self._folder.artifacts, ignore_errors=True)
        self._folder.artifacts.mkdir()
        artifacts.write_run(run, self._folder.artifacts)
        if run.config.tracking.weights == "best":
            is_alone = self._task.shared.parent == self.run.folder
            kept = kept_weights(self._task.shared, run.config.run_key(self._task.digest))
            artifacts.write_weights(run, self._folder.artifacts if is_alone else kept)
        end = self._described(run, dataset)
        self.report(replace(end, artifacts=self._folder.artifact_seals()))

    def _described(self, run: TrainedRun, dataset: Dataset) -> Ended:
        """Measure the run's feature spaces, predict, and draw its pictures; return its end."""
        metrics: dict[str, float] = {}
        steps: dict[str, Callable[[], object]] = {}
        if run.history.diverged_at is None:
            steps["metrics of feature spaces"] = lambda: metrics.update(
                representations.separation(run.network, dataset)
            )
            if run.config.tracking.pictures != "none":
                steps["predictions"] = lambda: predictions_file.write(
                    predict(run, dataset), self._folder.artifacts
                )
        if run.config.tracking.pictures == "all":
            from lockstep.pictures import run_pictures  # here, because it loads matplotlib

            folder = self._folder.artifacts
            predictions = folder / predictions_file.FILE
            steps |= run_pictures.drawings(
                run, dataset, self.run.name, folder, self._task.shared, predictions
            )
        failures = attempted(steps)
        return Ended(
            stopped_at=run.stopped_at,
            restored_epoch=run.history.restored_epoch,
            metrics=metrics,
            warnings=failures,
            library_warnings=library_warnings.taken(),
        )


def attempted(steps: Mapping[str, Callable[[], object]]) -> list[str]:
    """Take steps that a run can do without; return a line for each that failed.

    Args:
        steps: by what they make.

    Raises:
        OSError: if the disk is full (see NO_ROOM).
    """
    failures = []
    for what, step in steps.items():
        try:
            step()
        except Exception as error:
            if is_no_room(error):
                raise
            failures.append(f"no {what}: {reason_of(error)}")
    return failures


def _checkpoint(folder: RunFolder) -> Checkpoint | None:
    saved = folder.checkpoint()
    return None if saved is None else Checkpoint(saved[0], *checkpoint.from_bytes(saved[1]))


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
