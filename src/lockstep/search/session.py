"""A search, from its settings to the winner it names."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from optuna.distributions import FloatDistribution, IntDistribution

from lockstep.config.command import Command, SearchRequest
from lockstep.config.parsing import for_shell
from lockstep.config.schema import RunConfig
from lockstep.config.search_config import SearchConfig
from lockstep.data import sources
from lockstep.execution import executor
from lockstep.execution.cores import count_workers
from lockstep.execution.task import Task
from lockstep.recovery.run_folder import folder_name
from lockstep.results import majority
from lockstep.results.run_result import RunFailed, RunResult, epochs_text, of_earlier_versions
from lockstep.results.winner import Ranking, Standings
from lockstep.search.rules import Rules, earlier_rules, rules
from lockstep.search.space import Space, corners, space_of
from lockstep.search.study import Study, claimed, studies
from lockstep.search.trials import PARENT, Trials
from lockstep.sweep.arrays import has_failed, prepare, train_all
from lockstep.sweep.checks import store_at
from lockstep.sweep.ledger import Ledger
from lockstep.sweep.names import confirmation_name, swept_keys
from lockstep.sweep.parent import SweepRequest
from lockstep.sweep.planning import workers_for
from lockstep.sweep.session import conclude, record
from lockstep.terminal import tables
from lockstep.terminal.console import console
from lockstep.tracking.store import Store
from lockstep.tracking.tags import labels

log = logging.getLogger("lockstep")

ENDED = "ended"
"""The study's user attribute that says whether the last command with it has ended."""

SHOWN = 10
"""Rows of the table at the end: the best."""


@dataclass(frozen=True)
class Found:
    """A search's result.

    Attributes:
        overrides: the winner's values of the searched keys; empty if no trial was trained to its end.
        value: its metric, the mean over its repeats.
        standings: its runs, ranked.
    """

    overrides: tuple[str, ...]
    value: float | None
    standings: Standings

    def raise_failures(self) -> None:
        """Raise RunFailed if a run failed."""
        for run in self.standings.runs:
            if run.status != "FINISHED":
                raise RunFailed(f"{run.name}: {run.reason}")


@sources.kept()
def carry_out(command: Command, folder: Path) -> Found:
    """Carry out a command's search, and record every trial's run under one parent run.

    The study is kept in `outputs/studies/`: the same command resumes it, and one with a greater `n_trials`
    adds to it.

    Args:
        folder: the search's folder, for its report.

    Raises:
        NotUploaded: see lockstep.sweep.session.
    """
    session = _Search(command)
    standings = session.carry_out(folder)
    if standings.winner is None:
        return Found((), None, standings)
    overrides = tuple(session.space.searched(standings.winner.runs[0].overrides))
    value = standings.winner.mean(standings.ranking.metric)
    return Found(overrides, value, standings)


class _Search:
    """A search that is carried out."""

    def __init__(self, command: Command) -> None:
        search = command.search
        assert search is not None
        self.command, self.composer = command, search.composer
        self.space = space_of(search)
        self.corners = [request.config for request in corners(search)]
        self.store = store_at(self.first.tracking.uri)
        self.rules = self._rules(search.config)
        self.ranking = Ranking(self.settings.metric, self.settings.maximizes, self.settings.confirm_seeds)

    @property
    def first(self) -> RunConfig:
        """The config of one trial; the settings that a search can't search are the same in all."""
        return self.corners[0]

    @property
    def settings(self) -> SearchConfig:
        """The search's settings."""
        return self.rules.settings

    def _rules(self, search: SearchConfig) -> Rules:
        """Return the rules: those of an earlier version if it began the search, and it is not to be rerun."""
        of_search = (search, self.space, self.corners, self.store.address)
        now = rules(*of_search)
        for earlier in earlier_rules(*of_search) if not (studies() / now.name).exists() else ():
            if (studies() / earlier.name).exists() and not self._is_rerun(earlier):
                if earlier.rungs != now.rungs:
                    log.info(
                        "an earlier version began this search; it goes on by its rules: %s, by %s as it is;"
                        " rerun=true searches anew",
                        _compared(earlier),
                        search.metric,
                    )
                return earlier
        return now

    def _is_rerun(self, earlier: Rules) -> bool:
        if not self.first.rerun:
            return False
        with claimed(earlier.name) as folder:
            return _has_ended(Study(folder, earlier), earlier)

    def carry_out(self, folder: Path) -> Standings:
        """Train and record the trials, then print the result."""
        settings, name, epochs = self.settings, self.rules.name, self.rules.epochs
        n_whole = settings.n_trials + settings.confirm_best * max(0, settings.confirm_seeds - 1)
        with claimed(name) as kept_in:
            study = _study(kept_in, self.rules, self.store, self.first.rerun)
            experiment = self.first.tracking.experiment
            sweep = SweepRequest(
                name=self.first.tracking.name or f"{swept_keys(self.space.keys)}, search",
                overrides=self.command.overrides,
                experiment=experiment,
                key=name,
                earlier_folder=folder_name("sweep", self.store.address, experiment, name),
                folder=folder,
                command=self.command.typed.whole if self.command.typed else "",
                scales=_scales(self.space),
                labels=labels(self.first.tracking),
                run_id=study.optuna.user_attrs.get(PARENT),
                rerun=study.optuna.user_attrs.get(PARENT) is None and self.first.rerun,
            )
            recording = record(
                self.store,
                sweep,
                n_whole * epochs,
                lambda ledger: self._train(study, ledger),
                self.ranking,
                self.first.tracking.system_metrics,
            )
            study.optuna.set_user_attr(ENDED, not recording.are_left)
        standings = recording.standings
        self._print(standings)
        conclude(self.store, self.first, recording, self.command.typed)
        return standings

    def _train(self, study: Study, ledger: Ledger) -> bool:
        """Train the trials; tell whether some are left, as one has failed."""
        launcher = self.command.launcher
        n_workers = min(workers_for(self.corners, launcher.n_jobs), self.settings.n_trials)
        trials = Trials(self.rules, self.space, self.composer, study, ledger, n_workers, launcher.exact)
        trials.resume()
        ledger.adopt()  # after the trials have their folders
        prepared = cache(lambda: prepare(ledger, self.first))

        def is_over() -> bool:
            return launcher.fail_fast and has_failed(ledger)

        def next_task() -> Task | None:
            task = None if is_over() else trials.next()
            if task is not None and n_workers > 1:
                prepared()
            return task

        loaded = [sources.load(config.data) for config in self.corners]
        by_digest = {dataset.description.digest: dataset for dataset in loaded}
        data = list(by_digest.values())
        executor.carry_out(next_task, data, n_workers, ledger.receive, trials.done, ledger.progress.place)
        if is_over():
            return True
        self._confirm(ledger)
        return bool(ledger.pending())

    def _confirm(self, ledger: Ledger) -> None:
        """Train the best runs with as many seeds as the settings say."""
        launcher = self.command.launcher
        train_all(ledger, launcher)  # runs that were deleted in MLflow
        seeds = [self.first.seed + index for index in range(self.settings.confirm_seeds)]
        best = Standings(tuple(ledger.results), self.ranking).rows[: self.settings.confirm_best]
        for repeats in best if seeds else ():
            run = repeats.representative
            has = {int(repeat.params["seed"]) for repeat in repeats.runs}
            for seed in (seed for seed in seeds if seed not in has):
                request = self.composer.request((*run.overrides, f"seed={seed}"))
                ledger.add(request, confirmation_name(run.name, seed))
        train_all(ledger, launcher)

    def _print(self, standings: Standings) -> None:
        metric, winner = self.settings.metric, standings.winner
        console.print()
        console.print(tables.leaderboard(standings.runs, standings.rows[:SHOWN], metric, console.width))
        console.print()
        console.print(_summary(standings.runs), soft_wrap=True)
        for said in filter(None, (majority.warning(standings.rows), of_earlier_versions(standings.runs))):
            console.print(said, soft_wrap=True)
        if winner is not None:
            best = for_shell(self.space.searched(winner.runs[0].overrides))
            console.print(f"Best by {metric}: {best}", soft_wrap=True)


def show(search: SearchRequest, configs: Sequence[RunConfig], n_jobs: int) -> None:
    """Print the plan of a search; train nothing.

    Args:
        configs: some of its trials.
        n_jobs: as for a sweep.
    """
    settings, space = search.config, space_of(search)
    n_workers = min(count_workers(n_jobs), settings.n_trials)
    judged = rules(settings, space, configs, configs[0].tracking.uri)
    console.print(
        f"A search over {', '.join(space.keys)}: {settings.n_trials} trials,"
        f" {settings.array_size} to an array, on"
        f" {n_workers} worker{'s' * (n_workers != 1)},"
        f" {_compared(judged)}.",
        soft_wrap=True,
    )


def _scales(space: Space) -> dict[str, str]:
    """Return the scale of each key whose numbers are searched, `log` or `linear`; a choice has none."""
    numbers = {
        dimension.key.lstrip("+"): dimension.distribution
        for dimension in space.values
        if isinstance(dimension.distribution, IntDistribution | FloatDistribution)
    }
    return {key: "log" if distribution.log else "linear" for key, distribution in numbers.items()}


def _compared(of: Rules) -> str:
    """Say after how many epochs trials are compared, or that all are trained to their end."""
    *most, last = [epochs_text(of.rungs.epochs(rung)) for rung in of.rungs.steps] or [""]
    ends = f"{', '.join(most)} and " if most else ""
    return f"compared after {ends}{last} of {of.epochs} epochs" if last else f"{of.epochs} epochs each"


def _has_ended(study: Study, of: Rules) -> bool:
    """Tell whether the last command with the study has ended."""
    is_done = len(study) >= of.settings.n_trials and not study.running()
    return bool(study.optuna.user_attrs.get(ENDED, is_done))


def _study(folder: Path, of: Rules, store: Store, rerun: bool) -> Study:
    """Return the study in the folder, a new one where `rerun` asks for it and the last command with the old
    one has ended, or its parent run was deleted from the store."""
    study = Study(folder, of)
    parent = study.optuna.user_attrs.get(PARENT)
    if (rerun and _has_ended(study, of)) or (parent is not None and not store.is_active(parent)):
        shutil.rmtree(folder)
        study = Study(folder, of)
    study.optuna.set_user_attr(ENDED, False)
    return study


def _summary(runs: Sequence[RunResult]) -> str:
    """Return a sentence on the trials: how many ended, were pruned, failed."""
    pruned = [run for run in runs if run.pruned_at is not None]
    n_failed = sum(run.status != "FINISHED" for run in runs)
    stopped = [run for run in runs if run.stopped_at is not None]
    parts = [f"{len(runs) - len(pruned) - len(stopped) - n_failed} trained to the end"]
    if stopped:
        parts.append(f"{len(stopped)} stopped early")
    if pruned:
        at = sorted({run.pruned_at for run in pruned if run.pruned_at is not None})
        parts.append(f"{len(pruned)} pruned after {' or '.join(map(epochs_text, at))} epochs")
    if n_failed:
        parts.append(f"{n_failed} failed")
    whole = [int(run.params["trainer.epochs"]) for run in runs]
    trained = sum(run.pruned_at or run.stopped_at or epochs for run, epochs in zip(runs, whole, strict=True))
    return f"{len(runs)} runs: {', '.join(parts)}; {trained:.4g} of {sum(whole)} epochs were trained."
