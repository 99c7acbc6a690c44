"""An MLflow run that is being recorded: params, metrics in batches, artifacts, status."""

import bisect
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import mlflow
import numpy as np
from mlflow.entities import Dataset as LoggedDataset
from mlflow.entities import DatasetInput, InputTag, Metric, Param

from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.results.history import History, Status


class Recorded:
    """An MLflow run that is RUNNING until `end`. Every call may be repeated without changing the result."""

    def __init__(self, client: mlflow.MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def artifacts(self, folder: Path) -> None:
        """Upload everything under `folder` as the run's artifacts."""
        self.client.log_artifacts(self.run_id, str(folder))

    def download(self, folder: Path) -> Path:
        """Download all of the run's artifacts below `folder`; return their folder."""
        return Path(self.client.download_artifacts(self.run_id, "", str(folder)))

    def end(self, status: Status, tags: Mapping[str, str] = MappingProxyType({})) -> None:
        """Set the run's final status, and tags that explain it."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value)
        self.client.set_terminated(self.run_id, status)


class RecordedRun(Recorded):
    """A training run in the store. Metrics are sent in batches; their steps are training iterations done."""

    def __init__(self, client: mlflow.MlflowClient, run_id: str, log_every: int) -> None:
        super().__init__(client, run_id)
        self._log_every = log_every
        self._params: list[Param] = []  # still to be sent
        self._iterations = 0  # of the history, already sent
        self._evaluations = 0  # of the history, already sent

    def describe(self, config: RunConfig, data: DataDescription | None) -> None:
        """Record the data set with its digest, if known; the first `record` sends the params."""
        self._params = [Param(key, text) for key, text in config.param_texts().items()]
        if data is None:
            return
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
        context = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.run_id, [DatasetInput(logged, [context])])

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
        incomplete last window, the run's summary, and the metrics `at_end`. A point has the time of its
        epoch: so a point that is sent again is equal, and the store keeps one.
        """
        metrics: list[Metric] = []

        def add(key: str, value: float, step: int) -> None:
            mark = bisect.bisect_left(history.marks, (step, 0))
            metrics.append(Metric(key, value, history.marks[mark][1], step))

        done, iterations = len(history.loss_T), self._iterations
        while done - iterations >= self._log_every or (last and done > iterations):
            start, iterations = iterations, min(iterations + self._log_every, done)
            add("train/loss", float(np.mean(history.loss_T[start:iterations])), iterations)
            add("train/accuracy", float(np.mean(history.accuracy_T[start:iterations])), iterations)
        for evaluation in history.evaluations[self._evaluations :]:
            add(f"{evaluation.split}/loss", evaluation.loss, evaluation.iteration)
            add(f"{evaluation.split}/accuracy", evaluation.accuracy, evaluation.iteration)
        if last and done:
            summary = history.summary()
            for key in ("time/train_seconds", "test/accuracy_best"):
                if key in summary:
                    add(key, summary[key], done)
            for key, value in at_end.items():
                add(key, value, done)
        return metrics, iterations
