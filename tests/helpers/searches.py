"""Searches on digits, and what their studies and stores hold."""

from pathlib import Path

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lockstep.data.datasets import load
from lockstep.data.description import iterations_per_epoch
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


def per_epoch(config):
    return iterations_per_epoch(config.data, load(config.data).description)


def config_of(run):
    """The run's config, and its artifacts' folder."""
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    return Description("run", "", [], "", "", tree).run_config("unused"), folder


def has_the_bits_of_one_alone(clone, run):
    """Whether all that was measured of a run, to where it was pruned, is what training it alone, without a
    pause, gives; and what was measured at rungs, what an evaluation amid that training gives."""
    client = mlflow.MlflowClient(clone.store)
    config, folder = config_of(run)
    steps = per_epoch(config)
    [alone] = train([config], load(config.data))
    epochs = float(run.data.tags.get("lockstep.pruned_at", config.trainer.epochs))
    iterations, at_rungs = round(epochs * steps), {}
    for split in ("val", "test"):
        points = {p.step: p.value for p in client.get_metric_history(run.info.run_id, f"{split}/loss")}
        expected = {e.iteration: e.loss for e in alone.history.of(split) if e.iteration <= iterations}
        assert {step: value for step, value in points.items() if step % steps == 0} == expected
        at_rungs[split] = {step: value for step, value in points.items() if step % steps}
    [evaluated] = train([config], load(config.data), rungs=list(at_rungs["val"]), pause_at=iterations)
    for split, points in at_rungs.items():
        of_split = [e for e in evaluated.history.evaluations if e.split == split and e.iteration in points]
        assert points == {e.iteration: e.loss for e in of_split}
    kept = pd.read_parquet(folder / "history.parquet")
    return np.array_equal(kept.loss[kept.split == "train"], alone.history.loss_T[:iterations])


def extrapolated(losses, iterations):
    """Minus the loss at the end, by half of NumPy's slope over the last three quarters; losses by step."""
    end = max(losses)
    late = [step for step in losses if step >= end / 4]
    slope = np.polyfit(np.log(late), np.log([losses[step] for step in late]), 1)[0] if late[1:] else 0
    return -losses[end] * (iterations / end) ** (slope / 2)


def compare_study_with_store(clone):
    """Fails unless both say the same of every trial: its scores follow from its losses."""
    client, trials, runs = mlflow.MlflowClient(clone.store), study_of(clone).trials, runs_of(clone)
    by_number = {int(run.info.run_name.partition(":")[0]): run for run in runs}
    assert sorted(by_number) == [trial.number for trial in trials]
    for trial in trials:
        run, told = by_number[trial.number], trial.intermediate_values
        config, _ = config_of(run)
        steps = per_epoch(config)
        losses = {p.step: p.value for p in client.get_metric_history(run.info.run_id, "val/loss")}
        for rung, score in told.items():
            seen = {step: loss for step, loss in losses.items() if step <= round(rung / 1000 * steps)}
            assert max(seen) == round(rung / 1000 * steps)
            assert score == pytest.approx(extrapolated(seen, steps * config.trainer.epochs))
        gone = float(run.data.tags.get("lockstep.pruned_at", "nan"))
        assert gone == max(told) / 1000 if trial.state == TrialState.PRUNED else np.isnan(gone)
        assert run.info.status == "FINISHED"
