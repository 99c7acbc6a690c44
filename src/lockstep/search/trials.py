"""A search's trials as tasks: they start together as arrays, and continue if they are promoted."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, Trial, TrialState

from lockstep.config.composer import Composer
from lockstep.config.errors import Refused
from lockstep.config.run_request import RunRequest
from lockstep.data import sources
from lockstep.data.description import iterations_per_epoch
from lockstep.execution.task import Task
from lockstep.recovery.interrupts import deferred
from lockstep.results.run_result import RunResult
from lockstep.search.halving import PROMOTED
from lockstep.search.queues import Queue, Queues, TrialRun
from lockstep.search.rules import Rules
from lockstep.search.scores import score
from lockstep.search.space import Space
from lockstep.search.study import Study
from lockstep.sweep.ledger import Ledger
from lockstep.sweep.names import trial_name
from lockstep.tracking.tags import DIVERGED, UNTAGGED

log = logging.getLogger("lockstep")

OUTCOME, PARENT = "outcome", "parent"
"""User attributes beside PROMOTED: a trial's result, and the study's parent run."""


class Trials:
    """The trials of a search: made into tasks for free workers, and judged when a task is done.

    Args:
        composer: composes a trial's config.
        n_workers: the number of workers that take tasks.
    """

    def __init__(
        self,
        rules: Rules,
        space: Space,
        composer: Composer,
        study: Study,
        ledger: Ledger,
        n_workers: int,
        exact: bool,
    ) -> None:
        # What changes: the last five. The others are what the search was asked for and works with.
        self._settings, self._rungs = rules.settings, rules.rungs
        self._space, self._composer = space, composer
        self._study, self._ledger, self._exact = study, ledger, exact
        self._array_size = min(self._settings.array_size, -(-self._settings.n_trials // n_workers))
        self._started = time.monotonic()
        self._queues = Queues(self._array_size, n_workers)
        self._running: dict[int, TrialRun] = {}  # by their entry's number
        self._first: dict[str, TrialRun] = {}  # the first trial of each config, by run key
        self._n_twins = 0
        self._tried: set[tuple[str, ...]] = set()  # overrides

    @deferred()
    def resume(self) -> None:
        """Resume the trials of earlier commands."""
        trials = self._study.optuna.get_trials(deepcopy=False)
        recorded = self._ledger.recorded() if trials else {}
        running = {trial.number: trial for trial in self._study.running()}
        for frozen in trials:  # in the order in which they were asked for
            if frozen.state.is_finished():
                self._recall(frozen, recorded)
            elif frozen.number in running:  # else it was not yet asked for
                self._add(running[frozen.number])
        # A kill may have come between an array's last epoch and the judging of its trials.
        for group in self._queues.take_paused():
            self._judge(group)
        if self._may_ask and self._n_trials % self._array_size:  # a kill while an array's trials were added
            self._ask()

    @deferred()
    def next(self) -> Task | None:
        """Return the next task for a free worker, or None."""
        while (queue := self._queues.ready(self._may_ask)) is None and self._may_ask:
            self._ask()
        if queue is None:
            return None
        group = self._queues.take(queue, self._may_ask)
        longest = max((run.iterations for run in group), key=len)  # those of the others are its first ones
        pause_at = None if queue.next_rung is None else longest[queue.next_rung]
        task = self._ledger.task([run.entry for run in group], 1, self._exact)
        return replace(task, pause_at=pause_at, rungs=tuple(longest.values()))

    @deferred()
    def done(self, task: Task) -> None:
        """Judge the trials of a task that is done: they have reached a rung, or their end."""
        self._judge([self._running[run.number] for run in task.runs])
        if (parent := self._ledger.parent_run_id) and PARENT not in self._study.optuna.user_attrs:
            self._study.optuna.set_user_attr(PARENT, parent)

    @property
    def _may_ask(self) -> bool:
        timeout = self._settings.timeout
        in_time = timeout is None or time.monotonic() - self._started < timeout
        is_left = self._n_trials < self._settings.n_trials and len(self._tried) < self._space.size
        return in_time and is_left

    @property
    def _n_trials(self) -> int:
        """Trials so far; those with the same config count once."""
        return len(self._study) - self._n_twins

    def _ask(self) -> None:
        """Add new trials until they fill an array."""
        while self._may_ask:
            n_twins = self._n_twins
            self._add(self._study.ask(self._space.suggest))
            if self._n_twins > n_twins:  # samplers repeat themselves in small spaces
                self._study.enqueue_one_of(self._space.untried(self._tried))
            elif self._n_trials % self._array_size == 0:
                break

    def _add(self, trial: Trial) -> None:
        """Add a trial, new or from an earlier command, and queue or judge it."""
        overrides = self._space.suggest(trial)
        self._tried.add(overrides)
        try:
            request = self._composer.request(overrides)
        except Refused as error:
            log.error("trial %d is not possible\n%s", trial.number, error)
            self._study.optuna.tell(trial, state=TrialState.FAIL)
            return
        frozen = self._study.optuna.get_trials(deepcopy=False)[trial.number]
        reported = max(frozen.intermediate_values, default=0)
        if first := self._first.get(_key(request)):
            self._n_twins += 1
            twin = TrialRun(trial, first.entry, first.iterations, reported=reported)
            if first.entry.result:
                self._tell(twin, first.entry.result)
            else:
                first.twins.append(twin)
            return
        run = self._run_of(trial, request)
        run.reported, run.promoted_at = reported, frozen.user_attrs.get(PROMOTED, 0)
        run.score = frozen.intermediate_values.get(reported, 0.0)
        self._running[run.entry.number] = run
        while not self._ledger.claim([run.entry]) and not run.entry.result:
            self._ledger.wait_for_others()
        if run.entry.result:
            self._judge([run])
        else:
            self._wait(run)

    def _run_of(self, trial: Trial, request: RunRequest) -> TrialRun:
        """Return the run of a trial that is the first of its config."""
        name = trial_name(trial.number, self._space.searched(request.overrides))
        of_search = [self._study.optuna.study_name, str(trial.number)]
        entry = self._ledger.add(request, name, of_search)
        run = TrialRun(trial, entry, self._rungs.iterations(entry.config, entry.data))
        self._first[_key(request)] = run
        return run

    def _recall(self, frozen: FrozenTrial, recorded: Mapping[str, str]) -> None:
        """Restore a finished trial's result from the study.

        Args:
            recorded: this search's MLflow runs by run key.
        """
        kept = frozen.user_attrs.get(OUTCOME)
        if kept is None:  # its config was invalid
            return
        self._tried.add(tuple(kept["overrides"]))
        request = self._composer.request(kept["overrides"])
        if _key(request) in self._first:
            self._n_twins += 1
            return
        entry = self._run_of(self._study.trial(frozen), request).entry
        has_folder = entry.folder.exists() or entry.earlier
        if has_folder and self._ledger.claim([entry], trains=False):
            self._ledger.prune(entry, kept["pruned_at"])  # decided before a kill, but not done
        elif entry.result is None:
            epochs = (kept.get(key) for key in ("pruned_at", "stopped_at", "restored_epoch"))
            result = entry.result_as(kept["status"], kept["metrics"], kept["reason"], *epochs)
            version = kept.get("numerics_version", UNTAGGED)
            key = entry.keys[version]
            child = recorded.get(key)
            run_id = kept.get("run_id") or child
            known = replace(result, run_key=key, numerics_version=version, run_id=run_id, is_stored=True)
            self._ledger.recall(entry, known, is_recorded=run_id is not None and run_id == child)

    def _wait(self, run: TrialRun) -> None:
        """Queue a trial until its next rung."""
        trainer, data = run.entry.config.trainer, run.entry.config.data
        self._queues.add(run, Queue(run.promoted_at, run.next_rung, data, trainer.device, trainer.precision))

    def _judge(self, runs: Sequence[TrialRun]) -> None:
        """Report trials to the study; then promote or prune the trials at a rung, best first."""
        for run in runs:
            self._report(run)
        better, pruned = -1 if self._settings.maximizes else 1, []
        for run in sorted(runs, key=lambda run: (better * run.score, run.trial.number)):
            entry = run.entry
            if entry.result:
                self._tell(run, entry.result)
            elif run.trial.should_prune():
                epochs = self._rungs.epochs(run.reported)
                self._tell(run, entry.result_as("FINISHED", entry.history.summary(), pruned_at=epochs))
                pruned.append((entry, epochs))
            else:
                run.promoted_at = run.reported
                run.trial.set_user_attr(PROMOTED, run.promoted_at)
                self._wait(run)
        self._study.sync()  # before runs are pruned: a kill in between must leave something to resume
        for entry, epochs in pruned:
            self._ledger.prune(entry, epochs)

    def _report(self, run: TrialRun) -> None:
        """Report the score at each rung that the trial has reached and the study doesn't have."""
        entry = run.entry
        total = iterations_per_epoch(entry.config.data, entry.data) * entry.config.trainer.epochs
        validated = [found for found in entry.history.evaluations if found.split == "val"]
        for rung, iterations in run.iterations.items():
            seen = [evaluation for evaluation in validated if evaluation.iteration <= iterations]
            if rung > run.reported and seen and seen[-1].iteration == iterations:
                run.score, run.reported = score(self._settings, seen, total), rung
                run.trial.report(run.score, rung)

    def _tell(self, run: TrialRun, result: RunResult) -> None:
        kept = {
            "overrides": run.entry.request.overrides,
            "status": result.status,
            "metrics": dict(result.metrics),
            "reason": result.reason,
            "pruned_at": result.pruned_at,
            "stopped_at": result.stopped_at,
            "restored_epoch": result.restored_epoch,
            "run_id": result.run_id,
            "numerics_version": result.numerics_version,
        }
        run.trial.set_user_attr(OUTCOME, kept)
        value = result.metrics.get(self._settings.metric)
        if result.is_complete and value is not None:
            self._study.optuna.tell(run.trial, value)
        elif result.pruned_at is not None or result.reason.startswith(DIVERGED):
            self._study.optuna.tell(run.trial, state=TrialState.PRUNED)  # the sampler learns from it
        else:
            self._study.optuna.tell(run.trial, state=TrialState.FAIL)
        self._running.pop(run.entry.number, None)
        for twin in run.twins:
            self._report(twin)
            self._tell(twin, result)


def _key(request: RunRequest) -> str:
    return request.config.run_key(sources.load(request.config.data).description.digest)
