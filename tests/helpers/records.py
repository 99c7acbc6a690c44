"""A tiny run to be recorded, and what a store has of it."""

import mlflow
import numpy as np
import torch

from lockstep.config.schema import (
    DigitsConfig,
    LogRegConfig,
    RunConfig,
    SGDConfig,
    TrackingConfig,
    TrainerConfig,
)
from lockstep.data.datasets import Dataset
from lockstep.results.history import History


def tiny():
    x = torch.zeros(6, 4)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    return Dataset("tiny", x, y, x[:3], y[:3], (2, 2), ("a", "b", "c"), "0123456789abcdef" * 2, "made up")


def config(log_every=50, experiment="tiny"):
    return RunConfig(
        model=LogRegConfig(name="logreg"),
        optim=SGDConfig(name="sgd", lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0),
        data=DigitsConfig(name="digits", batch_size=2, drop_last=True, val_size=0, shuffle_seed=0),
        trainer=TrainerConfig(epochs=2, device="cpu", precision="float32", log_every=log_every),
        tracking=TrackingConfig(uri="postgresql://me:secret@host/db", experiment=experiment, pictures="all"),
        seed=0,
    )


def trained(iterations, evaluations=()):
    """Epochs of one iteration, that of iteration t at time 1000 t."""
    return History(
        np.arange(1.0, iterations + 1),
        np.full(iterations, 0.5),
        list(evaluations),
        iterations,
        seconds=1.5,
        marks=[(t, 1000 * t) for t in range(1, iterations + 1)],
    )


def points(store, run_id, key):
    history = store.client.get_metric_history(run_id, key)
    return [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)]


def recorded(uri):
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id])
    return {run.info.run_name: (run.info.status, run.data.tags.get("lockstep.reason")) for run in runs}


def statuses(outcomes):
    return [(outcome.status, outcome.stored) for outcome in outcomes]
