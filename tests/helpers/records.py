"""A tiny run to be recorded, and what a store has of it."""

from dataclasses import asdict

import mlflow
import numpy as np
import torch

from lockstep.config.data_config import DigitsConfig
from lockstep.config.identity import NUMERICS_VERSION
from lockstep.config.model_config import LogRegConfig
from lockstep.config.optim_config import SGDConfig
from lockstep.config.schema import RunConfig, TrackingConfig, TrainerConfig
from lockstep.data.datasets import Dataset
from lockstep.data.description import DataDescription
from lockstep.recovery.description import Description
from lockstep.results.history import History
from lockstep.sweep.session import carry_out


def tiny():
    x = torch.zeros(6, 4)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    digest = "0123456789abcdef" * 2
    description = DataDescription("tiny", digest, (2, 2), ("a", "b", "c"), len(y), 3, "made up")
    return Dataset(description, x, y, x[:3], y[:3])


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


def statuses(runs):
    return [(run.status, run.is_stored) for run in runs]


def carried_out(*args, **options):
    """The results of a session's runs."""
    return list(carry_out(*args, **options).runs)


def described(store, config, name="a run", overrides=(), token="token"):
    """What a run folder says of a run on the tiny data set."""
    return Description(
        kind="run",
        name=name,
        overrides=list(overrides),
        uri=store.address,
        experiment=config.tracking.experiment,
        config=config.model_dump(mode="json", exclude={"tracking": {"uri"}}),
        token=token,
        numerics_version=NUMERICS_VERSION,
        data=asdict(tiny().description),
    )


def start(store, config, name="a run", overrides=(), parent=None, token="token"):
    """The MLflow run of a run on the tiny data set."""
    return store.start(described(store, config, name, overrides, token), parent)


def recorded_sweep(store, runs, parent_tags=()):
    """A sweep of runs with these params, metrics and tags, and how they ended; its parent's id."""
    client = store.client
    experiment = store.experiment_id(f"experiment-{len(client.search_experiments())}")
    tags = {"lockstep.kind": "sweep", "lockstep.overrides": "a=1,2", **dict(parent_tags)}
    parent = client.create_run(experiment, tags=tags, run_name="sweep").info.run_id
    ids = []
    for params, metrics, more, status in runs:
        typed = " ".join(f"{key}={value}" for key, value in params.items() if key != "derived")
        of_run = {"lockstep.kind": "run", "lockstep.overrides": typed, "mlflow.parentRunId": parent, **more}
        run_id = client.create_run(experiment, tags=of_run, run_name=typed).info.run_id
        for key, value in params.items():
            client.log_param(run_id, key, value)
        for key, value in metrics.items():
            client.log_metric(run_id, key, value)
        client.set_terminated(run_id, status)
        ids.append(run_id)
    client.set_terminated(parent, "FINISHED")
    return parent, ids
