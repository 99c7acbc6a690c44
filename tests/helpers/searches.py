"""Searches on digits, and what their studies and stores hold."""

from pathlib import Path

import mlflow
import numpy as np
import optuna
import pandas as pd
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lockstep.data.datasets import load
from lockstep.recovery.description import Description
from lockstep.training.loop import train

DIGITS = ("-m", "hydra/sweeper=search", "data=digits", "data.val_size=300", "tracking.pictures=none")


ONE = ("hydra.launcher.n_jobs=1",)


SPACE = (
    "optim.lr=tag(log,interval(0.003,0.5))",
    "model.hidden_dim1=choice(16,32)",
    "model.dropout=interval(0,0.5)",
)


TWELVE = (*DIGITS, *ONE, *SPACE, "hydra.sweeper.n_trials=12", "hydra.sweeper.array_size=4")


def study_of(clone):
    [path] = (clone.root / "outputs" / "studies").glob("*/optuna.log")
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=path.parent.name, storage=storage)


def memory_of(clone):
    return [
        (trial.number, trial.state.name, trial.params, trial.intermediate_values, trial.value)
        for trial in study_of(clone).trials
    ]


def runs_of(clone):
    client = mlflow.MlflowClient(clone.store)
    found = client.search_runs([client.get_experiment_by_name("digits").experiment_id], max_results=1000)
    return [run for run in found if run.data.tags["lockstep.kind"] == "run"]


def has_the_bits_of_one_alone(clone, run):
    """Whether all that was measured of a run, to where it was given up, is what training it alone, without a
    pause, gives."""
    client = mlflow.MlflowClient(clone.store)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    config = Description("run", "", [], "", "", tree).run_config("unused")
    [alone] = train([config], load(config.data))
    epochs = int(run.data.tags.get("lockstep.pruned_at", config.trainer.epochs))
    for split in ("val", "test"):
        points = client.get_metric_history(run.info.run_id, f"{split}/loss")
        assert [p.value for p in points] == [e.loss for e in alone.history.of(split)[:epochs]]
    kept = pd.read_parquet(folder / "history.parquet")
    iterations = alone.history.of("val")[epochs - 1].iteration
    return np.array_equal(kept.loss[kept.split == "train"], alone.history.loss_T[:iterations])


def compare_study_with_store(clone):
    """Fails unless both say the same of every trial."""
    client, trials, runs = mlflow.MlflowClient(clone.store), study_of(clone).trials, runs_of(clone)
    by_number = {int(run.info.run_name.partition(":")[0]): run for run in runs}
    assert sorted(by_number) == [trial.number for trial in trials]
    for trial in trials:
        run, told = by_number[trial.number], trial.intermediate_values
        recorded = client.get_metric_history(run.info.run_id, "val/accuracy")
        assert [point.value for point in recorded] == [told[epoch] for epoch in sorted(told)]
        gone = str(max(told)) if trial.state == TrialState.PRUNED else None
        assert run.data.tags.get("lockstep.pruned_at") == gone
        assert run.info.status == "FINISHED"
