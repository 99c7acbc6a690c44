"""The runs of one command, from checked configs to recorded outcomes."""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from joblib import effective_n_jobs
from omegaconf import DictConfig

from lockstep import data, report, workers
from lockstep.config import Refused, RunConfig
from lockstep.interrupts import deferred
from lockstep.plan import DataShape, Job, Plan, plan
from lockstep.recorder import Recorder
from lockstep.report import Outcome
from lockstep.terminal import Progress, console
from lockstep.tracking import Store
from lockstep.train import Status, device_of, gemm_flops
from lockstep.workers import Task

store_at = cache(Store)


def check_runs(configs: Sequence[RunConfig]) -> None:
    """Find what speaks against carrying out these runs, beyond each value by itself: data and devices.

    Raises:
        Refused: listing every problem.
    """
    problems: list[str] = []
    for stream, trainer in dict.fromkeys((config.data, config.trainer) for config in configs):
        try:
            device_of(trainer)
            problems += data.check_stream(stream, data.load(stream))
        except Refused as refused:
            problems += refused.problems
    uris = {config.tracking.uri for config in configs}
    if len(uris) > 1:
        problems.append("tracking.uri: the runs of a sweep are recorded in one store; give one value")
    if problems:
        raise Refused(problems)


def check_store(configs: Sequence[RunConfig]) -> None:
    """Open the runs' store, which makes it if need be: so this is the last check.

    Raises:
        Refused: if it can't be used.
    """
    store = store_at(configs[0].tracking.uri)
    for name in {config.tracking.experiment for config in configs}:
        store.experiment_id(name)


def carry_out(
    jobs: Sequence[Job], sweep: Sequence[str] | None, n_jobs: int = -1, exact: bool = False
) -> list[Outcome]:
    """Train and record runs; those of a sweep under one parent run. One that fails leaves the others be.

    Args:
        jobs: one or more.
        sweep: the sweep's overrides as typed, or None for a run without a sweep.
        n_jobs: workers as joblib counts them: -1 for all cores.
        exact: see TrainingArray.
    """
    configs, names = [job.config for job in jobs], run_names(jobs)
    store, experiment = store_at(configs[0].tracking.uri), configs[0].tracking.experiment
    planned = plan_of(configs, n_jobs)
    parent = None
    status: Status = "KILLED"
    try:
        if sweep is not None:
            with deferred():
                parent = store.start_sweep(experiment, f"sweep of {len(jobs)} runs", sweep)
        parent_id = parent.run_id if parent else None
        with (
            tempfile.TemporaryDirectory(prefix="lockstep-") as folder,
            Progress(sum(config.trainer.epochs for config in configs)) as progress,
            Recorder(store, jobs, names, Path(folder), parent_id, progress) as recorder,
        ):
            tasks = [
                Task(
                    array.jobs,
                    tuple(configs[k] for k in array.jobs),
                    tuple(names[k] for k in array.jobs),
                    tuple(recorder.folder(k) for k in array.jobs),
                    recorder.shared,
                    planned.threads,
                    exact,
                )
                for array in planned.arrays
            ]
            datasets = [data.load(task.configs[0].data) for task in tasks]
            workers.carry_out(tasks, datasets, planned.n_workers, recorder.hear)
            recorder.draw_best()
        outcomes = recorder.outcomes
        status = "FINISHED" if all(outcome.status == "FINISHED" for outcome in outcomes) else "FAILED"
    finally:
        if parent is not None:
            with deferred():
                parent.end(status)
    _show(outcomes, store, store.experiment_id(experiment))
    return outcomes


def plan_of(configs: Sequence[RunConfig], n_jobs: int) -> Plan:
    """The plan for runs whose data is there. On anything but the CPU there is one worker."""
    datasets = [data.load(config.data) for config in configs]
    shapes = [
        DataShape(dataset.n_features, dataset.n_classes, len(dataset.x_train), len(dataset.x_test))
        for dataset in datasets
    ]
    on_cpu = all(device_of(trainer).type == "cpu" for trainer in {config.trainer for config in configs})
    return plan(configs, shapes, effective_n_jobs(n_jobs) if on_cpu else 1)


def show_plan(jobs: Sequence[Job], n_jobs: int) -> None:
    """Print what `carry_out` would do with these runs, and how long it would take; train nothing."""
    planned = plan_of([job.config for job in jobs], n_jobs)
    flops = gemm_flops()
    console.print(report.plan_table(planned, run_names(jobs), flops))
    console.print()
    console.print(report.plan_summary(planned, flops), soft_wrap=True)


def train_one(composed: DictConfig) -> float | None:
    """One run without a sweep, as Hydra composed it; what its job returns.

    Raises:
        RunFailed: if the run did not finish.
    """
    overrides = tuple(HydraConfig.get().overrides.task)
    [outcome] = carry_out([Job(RunConfig.of(composed), overrides)], sweep=None)
    return outcome.result()


def run_names(jobs: Sequence[Job]) -> list[str]:
    """Each run's name: the overrides that tell it from the others, else its model."""
    common = set.intersection(*(set(job.overrides) for job in jobs))
    return [
        " ".join(_short(override) for override in job.overrides if override not in common)
        or job.config.model.name
        for job in jobs
    ]


def _short(override: str) -> str:
    """`optim.lr=0.1` → `lr=0.1`."""
    key, _, value = override.partition("=")
    return f"{key.rpartition('.')[2]}={value}"


def _show(outcomes: Sequence[Outcome], store: Store, experiment_id: str) -> None:
    """The table of the runs, and how to compare them in MLflow's UI."""
    console.print()
    console.print(report.leaderboard(outcomes))
    console.print()
    if len(outcomes) > 1 and not any(outcome.history.of("val") for outcome in outcomes):
        console.print("Ranked by test accuracy, as there is no validation split (data.val_size=0).")
    console.print(f"Compare the runs in MLflow: {store.ui(experiment_id)}", soft_wrap=True)
