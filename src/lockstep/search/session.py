"""A search, from its settings to the winner it names."""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra.core.override_parser.types import Override
from joblib import effective_n_jobs
from omegaconf import DictConfig

from lockstep.config.job import Job
from lockstep.config.schema import RunConfig, SearchConfig
from lockstep.data import datasets
from lockstep.execution import workers
from lockstep.execution.task import Task
from lockstep.results import winner
from lockstep.results.run_result import Outcome, RunFailed
from lockstep.results.winner import Repeats
from lockstep.search.halving import rungs
from lockstep.search.space import Space
from lockstep.search.study import Study, claimed
from lockstep.search.trials import PARENT, Trials
from lockstep.sweep.ledger import Recorder, Sweep
from lockstep.sweep.session import conclude, prepare, record, store_at, train_all
from lockstep.terminal import tables
from lockstep.terminal.console import console
from lockstep.tracking.store import Store
from lockstep.training.device import device_of

SHOWN = 10
"""Rows of the table at the end: the best."""


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        overrides: what the winner's searched keys are set to; empty where no trial came to its end.
        value: its metric, the mean over its seeds where it was trained with several.
        failures: runs that failed.
    """

    overrides: tuple[str, ...]
    value: float | None
    failures: tuple[Outcome, ...]

    def raise_failures(self) -> None:
        """Raises RunFailed if a run failed."""
        for outcome in self.failures:
            raise RunFailed(f"{outcome.name}: {outcome.reason}")


def carry_out(
    settings: SearchConfig,
    overrides: Sequence[Override],
    groups: Collection[str],
    compose: Callable[[list[str]], DictConfig],
    typed: Sequence[str],
    n_jobs: int,
    exact: bool,
    folder: Path,
) -> Found:
    """Search, and record every trial's run under one parent run.

    The study is kept in `outputs/studies/`: the same command goes on with it, and one with a greater
    `n_trials` adds to it.

    Args:
        overrides: the command's, parsed.
        groups: names of config groups.
        compose: overrides → what Hydra makes of them.
        typed: the overrides as typed.
        n_jobs, exact, folder: as for a sweep.

    Raises:
        Undelivered: see lockstep.sweep.session.
    """

    @cache
    def composed(options: tuple[str, ...]) -> DictConfig:
        return compose(list(options))

    def config_of(overrides: Sequence[str]) -> RunConfig:
        return RunConfig.of(compose(list(overrides)))

    space = Space(overrides, groups, composed)
    corners = [config_of(corner) for corner in space.corners()]
    first = corners[0]
    store, experiment = store_at(first.tracking.uri), first.tracking.experiment
    loaded = {dataset.digest: dataset for dataset in (datasets.load(config.data) for config in corners)}
    on_cpu = all(device_of(config.trainer).type == "cpu" for config in corners)
    n_workers = min(effective_n_jobs(n_jobs) if on_cpu else 1, settings.n_trials)
    epochs = max(config.trainer.epochs for config in corners)
    name = _name(settings, space, corners, store)

    def ranked(outcomes: Sequence[Outcome]) -> list[Repeats]:
        return winner.ranked(outcomes, settings.metric, settings.maximizes)

    with claimed(name) as kept_in:
        study = _study(kept_in, settings, epochs, store, first.rerun)
        sweep = Sweep(f"search over {space}", typed, experiment, [name], study.optuna.user_attrs.get(PARENT))
        seeds = [first.seed + index for index in range(settings.confirm_seeds)]
        confirming = settings.confirm_best * max(0, len(seeds) - 1) * epochs

        def work(recorder: Recorder) -> None:
            trials = Trials(settings, space, config_of, study, recorder, n_workers, exact)
            trials.resume()
            recorder.adopt()
            prepared = cache(lambda: prepare(recorder, first))

            def next_task() -> Task | None:
                task = trials.next()
                if task is not None and n_workers > 1:
                    prepared()
                return task

            workers.carry_out(
                next_task,
                list(loaded.values()),
                n_workers,
                recorder.hear,
                done=trials.done,
            )
            for best in ranked(recorder.outcomes)[: settings.confirm_best] if seeds else ():
                [outcome] = best.outcomes
                for seed in set(seeds) - {outcome.config.seed}:
                    asked = (*outcome.overrides, f"seed={seed}")
                    recorder.add(Job(config_of(asked), asked), f"{outcome.name} seed={seed}")
            train_all(recorder, n_jobs, exact)

        outcomes, trouble, run_id = record(
            store, sweep, settings.n_trials * epochs + confirming, work, ranked
        )
    rows = ranked(outcomes)
    if confirmed := [row for row in rows if len(row.outcomes) > 1]:
        rows = confirmed
    console.print()
    console.print(tables.leaderboard(outcomes, rows[:SHOWN]))
    console.print()
    console.print(_summary(outcomes, settings), soft_wrap=True)
    failures = tuple(outcome for outcome in outcomes if outcome.status != "FINISHED")
    found = Found((), None, failures)
    if rows:
        best_overrides = tuple(space.searched(rows[0].outcomes[0].overrides))
        found = Found(best_overrides, rows[0].mean(settings.metric), failures)
        console.print(f"Best by {settings.metric}: {' '.join(best_overrides)}", soft_wrap=True, markup=False)
    conclude(store, first, trouble, run_id, folder)
    return found


def show(settings: SearchConfig, space: str, configs: Sequence[RunConfig], n_jobs: int) -> None:
    """Print what a search would do; train nothing.

    Args:
        space: what it searches, in words.
        configs: some of its trials.
        n_jobs: as for a sweep.
    """
    epochs = max(config.trainer.epochs for config in configs)
    n_workers = min(effective_n_jobs(n_jobs), settings.n_trials)
    judged = " and ".join(map(str, rungs(settings, epochs)))
    console.print(
        f"A search over {space}: {settings.n_trials} trials, {settings.array_size} to an array, on"
        f" {n_workers} worker{'s' * (n_workers != 1)},"
        f" {f'judged after epoch {judged} of {epochs}' if judged else f'{epochs} epochs each'}.",
        soft_wrap=True,
        markup=False,
    )


def _name(settings: SearchConfig, space: Space, corners: Sequence[RunConfig], store: Store) -> str:
    """The name of the study: the same for the same search, however long it is to go on."""
    decisive = {"sampler", "seed", "metric", "direction", "pruner", "min_epochs", "reduction_factor"}
    identity = [
        store.address,
        corners[0].tracking.experiment,
        settings.model_dump(include=decisive),
        space.identity,
        [config.run_key(datasets.load(config.data).digest) for config in corners],
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _study(folder: Path, settings: SearchConfig, epochs: int, store: Store, rerun: bool) -> Study:
    """The study in the folder, unless it is to start anew: as `rerun` says of one that is complete, or as its
    parent run was deleted from the store."""
    study = Study(folder, settings, epochs)
    is_complete = len(study) >= settings.n_trials and not study.running()
    parent = study.optuna.user_attrs.get(PARENT)
    if (rerun and is_complete) or (parent is not None and not store.is_there(parent)):
        shutil.rmtree(folder)
        study = Study(folder, settings, epochs)
    return study


def _summary(outcomes: Sequence[Outcome], settings: SearchConfig) -> str:
    """What became of the trials, in a sentence."""
    pruned = [outcome for outcome in outcomes if outcome.pruned_at is not None]
    n_failed = sum(outcome.status != "FINISHED" for outcome in outcomes)
    n_ended = len(outcomes) - len(pruned) - n_failed
    parts = [f"{n_ended} trained to the end"]
    if pruned:
        at = sorted({outcome.pruned_at for outcome in pruned if outcome.pruned_at is not None})
        parts.append(f"{len(pruned)} given up after epoch {' or '.join(map(str, at))}")
    if n_failed:
        parts.append(f"{n_failed} failed")
    trained = sum(outcome.pruned_at or outcome.config.trainer.epochs for outcome in outcomes)
    whole = sum(outcome.config.trainer.epochs for outcome in outcomes)
    return f"{len(outcomes)} runs: {', '.join(parts)}; {trained} of {whole} epochs were trained."
