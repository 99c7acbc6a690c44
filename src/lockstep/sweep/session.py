"""The runs of one command, from checked configs to recorded outcomes."""

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from joblib import effective_n_jobs
from omegaconf import DictConfig
from threadpoolctl import threadpool_limits

from lockstep.config.errors import Refused
from lockstep.config.job import Job
from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.execution import workers
from lockstep.execution.plan import DataShape, Plan, plan
from lockstep.recovery.interrupts import deferred
from lockstep.recovery.run_folder import unfinished
from lockstep.results import winner
from lockstep.results.run_result import Outcome
from lockstep.results.winner import Repeats
from lockstep.sweep.ledger import Recorder, Sweep
from lockstep.terminal import tables
from lockstep.terminal.console import console
from lockstep.terminal.progress import Progress
from lockstep.tracking import logged_model, sweeps
from lockstep.tracking.store import STORED_RUNS, Store
from lockstep.tracking.uploader import PATIENCE_SECONDS, Delivery
from lockstep.training.device import device_of, gemm_flops

log = logging.getLogger("lockstep")

store_at = cache(Store)

CLOSING_SECONDS = 2.0
"""How long an interrupted command waits for a store that doesn't answer."""


def check_runs(configs: Sequence[RunConfig]) -> None:
    """Find what speaks against carrying out these runs, beyond each value by itself: data and devices.

    Raises:
        Refused: listing every problem.
    """
    problems: list[str] = []
    for stream, trainer in dict.fromkeys((config.data, config.trainer) for config in configs):
        try:
            device_of(trainer)
            problems += datasets.check_stream(stream, datasets.load(stream))
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
    jobs: Sequence[Job],
    sweep: Sequence[str] | None,
    n_jobs: int = -1,
    exact: bool = False,
    folder: Path | None = None,
) -> list[Outcome]:
    """Train and record runs; those of a sweep under one parent run. One that fails leaves the others be.

    Of a sweep, runs that the store has are not trained again, those that an earlier command left unfinished
    go on from their last checkpoint, and those that another process trains just now are waited for.

    Args:
        jobs: one or more.
        sweep: the sweep's overrides as typed, or None for a run without a sweep.
        n_jobs: workers as joblib counts them: -1 for all cores.
        exact: see TrainingArray.
        folder: the sweep's, which gets its report.

    Raises:
        Undelivered: if the store did not take all that there is; the next command, or `deliver`, brings it.
    """
    names, experiment = run_names(jobs), jobs[0].config.tracking.experiment

    def work(recorder: Recorder) -> None:
        for job, name in zip(jobs, names, strict=True):
            recorder.add(job, name)
        recorder.adopt()
        train_all(recorder, n_jobs, exact)

    parent = None
    if sweep is not None:
        name = f"sweep of {len(jobs)} run{'s' * (len(jobs) != 1)}"
        keys = [job.config.run_key(datasets.load(job.config.data).digest) for job in jobs]
        parent = Sweep(name, sweep, experiment, keys)
    store = store_at(jobs[0].config.tracking.uri)
    outcomes, trouble, run_id = record(store, parent, sum(job.config.trainer.epochs for job in jobs), work)
    console.print()
    console.print(tables.leaderboard(outcomes))
    console.print()
    if len(outcomes) > 1 and not any("val/accuracy" in outcome.metrics for outcome in outcomes):
        console.print("Ranked by test accuracy, as there is no validation split (data.val_size=0).")
    conclude(store, jobs[0].config, trouble, run_id, folder)
    return outcomes


def record(
    store: Store,
    sweep: Sweep | None,
    epochs: int,
    work: Callable[[Recorder], object],
    rank: Callable[[Sequence[Outcome]], list[Repeats]] = winner.ranked,
) -> tuple[list[Outcome], str, str | None]:
    """Have runs trained and recorded, and end them truthfully, however that ends.

    Args:
        epochs: of all runs, as far as that is known.
        work: adds runs to the recorder, and trains them.
        rank: which of them is best.

    Returns:
        What became of the runs; the store's answer where it did not take all of it, else an empty text; the
        parent's MLflow run, where there is one.
    """
    with Progress(epochs, sweep is not None) as progress, Delivery(store) as delivery:
        recorder = Recorder(store, sweep, delivery, progress)
        try:
            work(recorder)
            left = delivery.wait()
            if not left:  # it draws from what the store has
                recorder.draw_best(rank)
        except BaseException:
            recorder.close("KILLED")
            with deferred():
                delivery.wait(patience=CLOSING_SECONDS)
            raise
        outcomes, run_id = recorder.outcomes, recorder.parent_run_id
        recorder.close("FINISHED" if all(o.status == "FINISHED" for o in outcomes) else "FAILED")
        left = delivery.wait(PATIENCE_SECONDS if not left else CLOSING_SECONDS)
        if run_id is not None and not left and (others := recorder.of_other_sweeps(run_id)):
            store.client.log_dict(run_id, {"runs": others}, STORED_RUNS)
    return outcomes, delivery.trouble if left else "", run_id


def conclude(
    store: Store, config: RunConfig, trouble: str, run_id: str | None = None, folder: Path | None = None
) -> None:
    """Describe a sweep in the store, log its best run's model, make its report, and say where to look at it.

    Args:
        config: one of the runs'; where it wants no pictures, there is no report.
        run_id, folder: the sweep's.

    Raises:
        Undelivered: if the runs aren't all there, as `trouble` says.
    """
    if trouble:
        raise Undelivered(
            f"The store has not taken all yet; it says: {trouble}\n"
            f"What it lacks is kept in {unfinished()}; once it is back, bring it there with\n"
            f"  {sys.executable} -m lockstep deliver {unfinished()}"
        )
    if run_id is not None and folder is not None:
        try:
            _describe(store, sweeps.read(store, run_id), folder, config.tracking.pictures != "none")
        except Exception as error:  # all runs are there
            log.warning("no report: %s; make it with: python -m lockstep report %s", error, run_id)
    experiment_id = store.experiment_id(config.tracking.experiment)
    console.print(f"Compare the runs in MLflow: {store.ui(experiment_id)}", soft_wrap=True)


def _describe(store: Store, sweep: sweeps.Sweep, folder: Path, with_page: bool) -> None:
    store.describe_sweep(sweep.run_id, sweeps.sentence(sweep), sweep.summary)
    if with_page:
        from lockstep.report import page  # here, as plotly takes a moment

        console.print(f"Report: {page.write(store, sweep, folder)}", soft_wrap=True, markup=False)
    if sweep.rows:
        try:
            logged = logged_model.log_model(store, sweep.rows[0].runs[0].run_id)
            console.print(f"The best run's model: {logged}", soft_wrap=True)
        except Exception as error:
            log.warning("the best run's model was not logged: %s", error)


def prepare(recorder: Recorder, config: RunConfig) -> None:
    """Do beside the training of workers what a command's end needs: in a thread, as here is little to do."""

    def work() -> None:
        # What fails is tried again at the end, which says so if it fails there too. One thread, as several
        # would wait for each other, busily: no core is free.
        with suppress(Exception), threadpool_limits(1):
            recorder.draw_ahead(config)
        import_module("torch._dynamo")  # exporting a model needs it, and it takes a second or two

    threading.Thread(target=work, daemon=True).start()


def train_all(recorder: Recorder, n_jobs: int, exact: bool) -> None:
    """Have all runs trained that were added and have not ended, by this command or another one."""
    while waiting := recorder.waiting():
        if taken := recorder.take_up(waiting):
            _train(taken, recorder, n_jobs, exact)
        elif recorder.waiting():
            recorder.wait_for_others()


class Undelivered(Exception):
    """The store did not take all that was trained; the message says how to bring it there later."""


def _train(taken: Sequence[int], recorder: Recorder, n_jobs: int, exact: bool) -> None:
    configs = [recorder.job(k).config for k in taken]
    planned = plan_of(configs, n_jobs)
    loaded = {dataset.digest: dataset for dataset in (datasets.load(config.data) for config in configs)}
    tasks = (
        recorder.task([taken[position] for position in array.jobs], planned.threads, exact)
        for array in planned.arrays
    )
    if planned.n_workers > 1:
        prepare(recorder, configs[0])
    workers.carry_out(
        lambda: next(tasks, None),
        list(loaded.values()),
        planned.n_workers,
        recorder.hear,
        threads=planned.threads,
    )


def plan_of(configs: Sequence[RunConfig], n_jobs: int) -> Plan:
    """The plan for runs whose data is there. On anything but the CPU there is one worker."""
    loaded = [datasets.load(config.data) for config in configs]
    shapes = [
        DataShape(dataset.n_features, dataset.n_classes, len(dataset.x_train), len(dataset.x_test))
        for dataset in loaded
    ]
    on_cpu = all(device_of(trainer).type == "cpu" for trainer in {config.trainer for config in configs})
    return plan(configs, shapes, effective_n_jobs(n_jobs) if on_cpu else 1)


def show_plan(jobs: Sequence[Job], n_jobs: int) -> None:
    """Print what `carry_out` would do with these runs, and how long it would take; train nothing."""
    planned = plan_of([job.config for job in jobs], n_jobs)
    flops = gemm_flops()
    console.print(tables.plan_table(planned, run_names(jobs), flops))
    console.print()
    console.print(tables.plan_summary(planned, flops), soft_wrap=True)


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
        " ".join(short(override) for override in job.overrides if override not in common)
        or job.config.model.name
        for job in jobs
    ]


def short(override: str) -> str:
    """`optim.lr=0.1` → `lr=0.1`."""
    key, _, value = override.partition("=")
    return f"{key.rpartition('.')[2]}={value}"
