"""The runs of one command, from checked configs to recorded outcomes."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lockstep import data, report
from lockstep.config import Refused, RunConfig
from lockstep.report import Outcome
from lockstep.terminal import Progress, console
from lockstep.tracking import Recorded, Status, Store
from lockstep.train import History, TrainedRun, device_of, train

log = logging.getLogger("lockstep")

store_at = cache(Store)


@dataclass(frozen=True)
class Job:
    """A run to be trained and the overrides that asked for it."""

    config: RunConfig
    overrides: tuple[str, ...]


def check(configs: Sequence[RunConfig]) -> None:
    """Find what speaks against carrying out these runs, beyond each value by itself: data, device, store.

    The store comes last, so that a command refused for another reason leaves nothing in it.

    Raises:
        Refused: listing every problem.
    """
    problems: list[str] = []
    for config in configs:
        try:
            device_of(config.trainer)
            problems += data.check_stream(config.data, data.load(config.data))
        except Refused as refused:
            problems += refused.problems
    uris = {config.tracking.uri for config in configs}
    if len(uris) > 1:
        problems.append("tracking.uri: the runs of a sweep are recorded in one store; give one value")
    if problems:
        raise Refused(problems)
    store = store_at(uris.pop())
    for name in {config.tracking.experiment for config in configs}:
        store.experiment_id(name)


def carry_out(jobs: Sequence[Job], sweep: Sequence[str] | None) -> list[Outcome]:
    """Train and record runs; those of a sweep under one parent run. One that fails leaves the others be.

    Args:
        jobs: one or more.
        sweep: the sweep's overrides as typed, or None for a run without a sweep.
    """
    store = store_at(jobs[0].config.tracking.uri)
    names = run_names(jobs)
    parent = None
    if sweep is not None:
        parent = store.start_sweep(jobs[0].config.tracking.experiment, f"sweep of {len(jobs)} runs", sweep)
    outcomes: list[Outcome] = []
    status: Status = "KILLED"
    try:
        with Progress(sum(job.config.trainer.epochs for job in jobs)) as progress:
            for job, name in zip(jobs, names, strict=True):
                outcomes.append(_carry_out_one(store, job, name, parent, progress))
        status = "FINISHED" if all(outcome.status == "FINISHED" for outcome in outcomes) else "FAILED"
    finally:
        if parent is not None:
            parent.end(status)
    _show(outcomes, store, store.experiment_id(jobs[0].config.tracking.experiment))
    return outcomes


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


def _carry_out_one(store: Store, job: Job, name: str, parent: Recorded | None, progress: Progress) -> Outcome:
    config, dataset = job.config, data.load(job.config.data)
    recorded = store.start_run(config, dataset, name, job.overrides, parent.run_id if parent else None)
    seen: TrainedRun | None = None
    status: Status = "KILLED"
    reason = ""

    def after_epoch(_: int, run: TrainedRun) -> None:
        nonlocal seen
        seen = run
        progress.epoch(name, run)
        recorded.record(run)

    try:
        [trained] = train([config], dataset, after_epoch)
        recorded.record(trained, last=True)
        with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
            report.write_artifacts(trained, dataset, name, Path(folder))
            recorded.artifacts(Path(folder))
        status = "FINISHED"
        if trained.diverged_at is not None:
            status, reason = "FAILED", f"diverged: the loss was not finite at iteration {trained.diverged_at}"
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]  # torch's errors go on with frames of C++
        status, reason = "FAILED", f"{type(error).__name__}: {first_line}"
        log.exception("%s failed", name)
    finally:
        recorded.end(status, reason)
    history, seconds = (seen.history, seen.seconds) if seen else (History(), 0.0)
    return Outcome(config, name, recorded.run_id, status, history, seconds, reason)


def _show(outcomes: Sequence[Outcome], store: Store, experiment_id: str) -> None:
    """The table of the runs, and how to compare them in MLflow's UI."""
    console.print()
    console.print(report.leaderboard(outcomes))
    console.print()
    if len(outcomes) > 1 and not any(outcome.history.of("val") for outcome in outcomes):
        console.print("Ranked by test accuracy, as there is no validation split (data.val_size=0).")
    console.print(f"Compare the runs in MLflow: {store.ui(experiment_id)}", soft_wrap=True)
