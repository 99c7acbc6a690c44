"""An MLflow run that is being recorded: params, metrics in batches, artifacts, status."""

import bisect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import mlflow
import numpy as np
import requests
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, FileInfo, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.results.history import History, Status
from lockstep.tracking.errors import is_outage


class Recorded:
    """An MLflow run that is RUNNING until `end`. Every call may be repeated without changing the result."""

    def __init__(self, client: mlflow.MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id
        self._sent: set[Path] = set()  # artifacts

    def artifacts(self, folder: Path, advanced: Callable[[], object] = lambda: None) -> None:
        """Upload every file under `folder` as the run's artifact; go on where an earlier call failed.

        Args:
            advanced: called after each file: a slow store may take long for all of them.
        """
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in files:
            if path not in self._sent:
                above = path.parent.relative_to(folder).as_posix()
                self.client.log_artifact(self.run_id, str(path), None if above == "." else above)
                self._sent.add(path)
                advanced()
        lost = missing(folder, files, partial(self.client.list_artifacts, self.run_id))
        self._sent -= set(lost)
        confirm(lost)

    def artifact(self, path: Path) -> None:
        """Upload one file as the run's artifact."""
        self.client.log_artifact(self.run_id, str(path))
        confirm(missing(path.parent, [path], partial(self.client.list_artifacts, self.run_id)))

    def download(self, folder: Path) -> Path:
        """Download all of the run's artifacts below `folder`; return their folder."""
        return Path(self.client.download_artifacts(self.run_id, "", str(folder)))

    def label(self, name: str, tags: Mapping[str, str]) -> None:
        """Give the run a name, unless that is empty, and tags."""
        if name:
            self.client.update_run(self.run_id, name=name)
        self.tag(tags)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags in one step, which a server repeats if another command sets the same ones meanwhile."""
        self.client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def end(self, status: Status, tags: Mapping[str, str] = MappingProxyType({})) -> None:
        """Set the run's final status, and tags that explain it."""
        self.tag(tags)
        self.client.set_terminated(self.run_id, status)


def data_input(data: DataDescription) -> DatasetInput:
    """Return the data set of a run, as MLflow records it."""
    profile = {
        part: {
            "instances": n,
            "features": list(data.feature_shape),
            "classes": data.n_classes,
            "class_names": list(data.class_names),
        }
        for part, n in (("train", data.n_train), ("test", data.n_test))
    }
    logged = LoggedDataset(
        name=data.name,
        digest=data.digest,
        source_type="code",
        source=json.dumps({"source": data.source}),
        profile=json.dumps(profile),
    )
    return DatasetInput(logged, [InputTag("mlflow.data.context", "training")])


def missing(
    folder: Path, files: Iterable[Path], listed: Callable[[str | None], list[FileInfo]]
) -> list[Path]:
    """Return the files of `folder` that the store does not have, or not with their size.

    MLflow's client takes every answer to an upload for a success, also the page of a proxy.

    Args:
        listed: returns what the store has in a folder, None for the uppermost one.
    """
    lost = []
    stored: dict[Path, dict[str, int | None]] = {}
    for path in files:
        above = path.parent.relative_to(folder)
        if above not in stored:
            entries = listed(None if above == Path() else above.as_posix())
            stored[above] = {Path(entry.path).name: entry.file_size for entry in entries}
        if stored[above].get(path.name, -1) not in (None, path.stat().st_size):  # None: it does not say
            lost.append(path)
    return lost


def confirm(lost: Sequence[Path]) -> None:
    """Check that no file is missing.

    Raises:
        requests.ConnectionError: if one is.
    """
    if lost:
        raise requests.ConnectionError(f"{lost[0].name} was sent, but the store does not have it")


class RecordedRun(Recorded):
    """A training run in the store. Metrics are sent in batches; their steps are training iterations done."""

    def __init__(self, client: mlflow.MlflowClient, run_id: str, log_every: int) -> None:
        super().__init__(client, run_id)
        self._log_every = log_every
        self._params: list[Param] = []  # still to be sent
        self._iterations = 0  # of the history, already sent
        self._evaluations = 0  # of the history, already sent
        self._recorded: set[tuple[str, int]] = set()  # metrics and steps that the store has

    def describe(self, config: RunConfig, data: DataDescription | None) -> None:
        """Record the data set with its digest, if known; the first `record` sends the params."""
        self._params = [Param(key, text) for key, text in config.param_texts().items()]
        if data is None:
            return
        try:
            self.client.log_inputs(self.run_id, [data_input(data)])
        except MlflowException as error:
            if is_outage(error):
                raise
            # MLflow looks for the data set, then adds it: another command may have added it in between.
            self.client.log_inputs(self.run_id, [data_input(data)])

    def keep_recorded(self, n_journaled: int) -> None:
        """Keep the points that the store has, where the journal has lost their epochs and times.

        Args:
            n_journaled: the iterations that the journal had.
        """
        latest = ("train/loss", "test/loss")  # which one is depends on log_every and the length of an epoch
        points = {key: self.client.get_metric_history(self.run_id, key) for key in latest}
        if any(point.step > n_journaled for of_key in points.values() for point in of_key):
            for key in self.client.get_run(self.run_id).data.metrics:
                of_key = points.get(key) or self.client.get_metric_history(self.run_id, key)
                self._recorded |= {(key, point.step) for point in of_key}

    def record(
        self, history: History, last: bool = False, at_end: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Send the part of the history that wasn't sent yet, see `unsent`."""
        metrics, iterations = self.unsent(history, last, at_end)
        # The client splits it into batches that a store accepts.
        self.client.log_batch(self.run_id, metrics=metrics, params=self._params)
        self._params, self._iterations, self._evaluations = [], iterations, len(history.evaluations)

    def unsent(
        self, history: History, last: bool = False, at_end: Mapping[str, float] = MappingProxyType({})
    ) -> tuple[list[Metric], int]:
        """Return the points that weren't sent yet, and the iterations up to which they go.

        They are means over whole windows of `log_every` iterations, and evaluations. With `last`, also an
        incomplete last window, the run's summary, the figures of the epoch that it restored, and the metrics
        `at_end`. A point has the time of its epoch: so a point that is sent again is equal, and the store
        keeps one.
        """
        metrics: list[Metric] = []

        def add(key: str, value: float, step: int) -> None:
            if (key, step) in self._recorded:
                return
            mark = bisect.bisect_left(history.marks, (step, 0))
            metrics.append(Metric(key, value, history.marks[mark][1], step))

        done, iterations = len(history.loss_T), self._iterations
        while done - iterations >= self._log_every or (last and done > iterations):
            start, iterations = iterations, min(iterations + self._log_every, done)
            add("train/loss", float(np.mean(history.loss_T[start:iterations])), iterations)
            add("train/accuracy", float(np.mean(history.accuracy_T[start:iterations])), iterations)
        for evaluation in history.evaluations[self._evaluations :]:
            for key, value in evaluation.metrics.items():
                add(key, value, evaluation.iteration)
        if last and done:
            summary = history.summary()
            for key in ("time/train_seconds", "test/accuracy_best"):
                if key in summary:
                    add(key, summary[key], done)
            for key, value in at_end.items():
                add(key, value, done)
            metrics += _of_restored(history)
        return metrics, iterations


def _of_restored(history: History) -> list[Metric]:
    """Return the figures of the epoch that a run restored, if that isn't its last one.

    They are measured again in effect, after the last iteration: at its step, a moment after the last epoch's.
    So they are the metrics' last values, as MLflow's own logging of Keras' early stopping has it.
    """
    if history.restored_epoch in (None, history.epochs):
        return []
    iterations, ended_at = history.marks[-1]
    return [
        Metric(key, value, ended_at + 1, iterations)
        for evaluation in history.final()
        for key, value in evaluation.metrics.items()
    ]
