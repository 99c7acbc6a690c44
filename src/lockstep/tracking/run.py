"""An MLflow run that is being recorded: its params, metrics in batches, artifacts, its end."""

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
    """An MLflow run that is RUNNING until `end`. Each call may be repeated: what is there stays as it is."""

    def __init__(self, client: mlflow.MlflowClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def artifacts(self, folder: Path) -> None:
        """Keep everything under `folder` as the run's artifacts."""
        self.client.log_artifacts(self.run_id, str(folder))

    def download(self, folder: Path) -> Path:
        """A copy of all the run's artifacts below `folder`."""
        return Path(self.client.download_artifacts(self.run_id, "", str(folder)))

    def end(self, status: Status, tags: Mapping[str, str] = MappingProxyType({})) -> None:
        """Set the run's last status, and tags that say more of it."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value)
        self.client.set_terminated(self.run_id, status)


class RecordedRun(Recorded):
    """A training run in the store. Metrics go in batches, their steps are training iterations done."""

    def __init__(self, client: mlflow.MlflowClient, run_id: str, log_every: int) -> None:
        super().__init__(client, run_id)
        self._log_every = log_every
        self._params: list[Param] = []  # not known to be in the store
        self._iterations = 0  # of the history, known to be in the store
        self._evaluations = 0  # likewise

    def describe(self, config: RunConfig, data: DataDescription) -> None:
        """Record the data set with its digest; params go with the first metrics."""
        self._params = [Param(key, text) for key, text in config.param_texts().items()]
        profile = {
            part: {"instances": n, "features": list(data.feature_shape), "classes": data.n_classes}
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
        """Send what the history holds beyond what was sent: whole windows of `log_every` iterations.

        With `last`, also the window that the end of training cut short, the run's summary, and what else
        was measured `at_end`. A point's
        time is that of the epoch it fell in, so that what is sent again is equal to what was, and a store
        keeps one point of those that are equal.
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
        # The client cuts it to what a store takes.
        self.client.log_batch(self.run_id, metrics=metrics, params=self._params)
        self._params, self._iterations, self._evaluations = [], iterations, len(history.evaluations)
