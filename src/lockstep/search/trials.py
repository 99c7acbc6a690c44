"""The trials of a search → tasks, and back: they start together as arrays, and go on if they are promoted."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.errors import HydraException
from optuna.trial import FrozenTrial, Trial, TrialState

from lockstep.config.errors import Refused
from lockstep.config.job import Job
from lockstep.config.schema import RunConfig, SearchConfig
from lockstep.data import datasets
from lockstep.execution.task import Task
from lockstep.recovery.interrupts import deferred
from lockstep.results.run_result import Outcome
from lockstep.search.halving import PROMOTED, rungs
from lockstep.search.space import Space
from lockstep.search.study import Study
from lockstep.sweep.ledger import Recorder
from lockstep.tracking.store import DIVERGED

log = logging.getLogger("lockstep")

OUTCOME, PARENT = "outcome", "parent"
"""What the study keeps beside what Optuna does and PROMOTED: what became of a trial's run; the parent run."""

Compose = Callable[[Sequence[str]], RunConfig]


@dataclass
class _Trial:
    """A trial and its run.

    Attributes:
        k: the run's number, see Recorder.
        promoted_at: the rung from which it was last promoted, or 0.
        reported: epochs whose metric the study has.
        twins: later trials of the same config, which are told the same.
    """

    trial: Trial
    job: Job
    name: str
    k: int
    promoted_at: int = 0
    reported: int = 0
    twins: "list[_Trial]" = field(default_factory=list)


class Trials:
    """Makes tasks of trials as workers get free, and judges the trials of those that are done.

    Trials that were promoted wait until there are enough of them for an array, or no more are to come:
    meanwhile new ones start, so that no worker has to wait.

    Args:
        compose: a trial's overrides → its config; Refused or HydraException where that can't be.
        n_workers: that take tasks at the same time.
    """

    def __init__(
        self,
        settings: SearchConfig,
        space: Space,
        compose: Compose,
        study: Study,
        recorder: Recorder,
        n_workers: int,
        exact: bool,
    ) -> None:
        self._settings, self._space, self._compose = settings, space, compose
        self._study, self._recorder, self._exact = study, recorder, exact
        self._n_workers = n_workers
        self._array_size = min(settings.array_size, -(-settings.n_trials // n_workers))
        self._started = time.monotonic()
        self._trials: dict[int, _Trial] = {}  # under way, by the number of their run
        self._waiting: dict[tuple[Any, ...], list[_Trial]] = {}  # that can share an array to the same rung
        self._first: dict[str, _Trial] = {}  # of trials with the same config, by their run key

    @deferred()
    def resume(self) -> None:
        """Take up all that an earlier command left."""
        for frozen in self._study.optuna.get_trials(deepcopy=False):
            if frozen.state.is_finished():
                self._recall(frozen)
        for trial in self._study.running():
            self._add(trial)
        # A kill may have come between an array's last epoch and what that decides.
        for key, group in list(self._waiting.items()):
            if all(self._recorder.history(of.k).epochs == key[1] for of in group):
                del self._waiting[key]
                self._judge(group)
        if self._may_ask and len(self._study) % self._array_size:  # or between two trials of an array
            self._ask()

    @deferred()
    def next(self) -> Task | None:
        """What a worker that is free is to do."""
        while (key := self._ready()) is None and self._may_ask:
            self._ask()
        if key is None:
            return None
        group = sorted(self._waiting.pop(key), key=lambda of: of.trial.number)
        # Where no more trials come, the workers share what there is.
        size = self._array_size if self._may_ask else -(-len(group) // self._n_workers)
        size = min(size, self._array_size)
        if left := group[size:]:
            self._waiting[key] = left
        return self._recorder.task([of.k for of in group[:size]], 1, self._exact, pause_at=key[1])

    def _ready(self) -> tuple[Any, ...] | None:
        """Whose turn it is: those of an array that is full, the furthest first; else new ones; else, when no
        more come, any, the furthest last: who joins them at their rung trains beside them."""
        full = [key for key, group in self._waiting.items() if len(group) >= self._array_size]
        if full:
            return max(full, key=lambda key: (key[0], len(self._waiting[key])))
        new = [key for key in self._waiting if key[0] == 0]
        left = [] if self._may_ask else list(self._waiting)
        return min(new or left, key=lambda key: (key[0], -len(self._waiting[key])), default=None)

    @deferred()
    def done(self, task: Task) -> None:
        """A worker has brought trials to a rung, or to their end."""
        self._judge([self._trials[k] for k in task.jobs])
        if (parent := self._recorder.parent_run_id) and PARENT not in self._study.optuna.user_attrs:
            self._study.optuna.set_user_attr(PARENT, parent)

    @property
    def _may_ask(self) -> bool:
        timeout = self._settings.timeout
        in_time = timeout is None or time.monotonic() - self._started < timeout
        return in_time and len(self._study) < self._settings.n_trials

    def _ask(self) -> None:
        """New trials, up to an array of them."""
        while self._may_ask:
            self._add(self._study.ask())
            if len(self._study) % self._array_size == 0:
                break

    def _add(self, trial: Trial) -> None:
        """A trial that was asked for, now or by an earlier command."""
        overrides = self._space.suggest(trial)
        try:
            job = Job(self._compose(overrides), overrides)
        except (Refused, HydraException) as error:
            log.error("trial %d is not possible\n%s", trial.number, error)
            self._study.optuna.tell(trial, state=TrialState.FAIL)
            return
        frozen = self._study.optuna.get_trials(deepcopy=False)[trial.number]
        if first := self._first.get(_key(job.config)):
            twin = _Trial(trial, job, first.name, first.k, reported=len(frozen.intermediate_values))
            if outcome := self._recorder.outcome(first.k):
                self._tell(twin, outcome)
            else:
                first.twins.append(twin)
            return
        of = self._of(trial, job)
        of.reported = len(frozen.intermediate_values)
        of.promoted_at = frozen.user_attrs.get(PROMOTED, 0)
        self._trials[of.k] = of
        while not self._recorder.take_up([of.k]) and not self._recorder.outcome(of.k):
            self._recorder.wait_for_others()
        if self._recorder.outcome(of.k):
            self._judge([of])
        else:
            self._wait(of)

    def _of(self, trial: Trial, job: Job) -> _Trial:
        """A trial that no earlier one is equal to, with its run."""
        name = " ".join([f"{trial.number}:", *map(_named, self._space.searched(job.overrides))])
        k = self._recorder.add(job, name, of_search=[self._study.optuna.study_name, str(trial.number)])
        of = self._first[_key(job.config)] = _Trial(trial, job, name, k)
        return of

    def _recall(self, frozen: FrozenTrial) -> None:
        """A trial that was told before."""
        kept = frozen.user_attrs.get(OUTCOME)
        if kept is None:  # it was not possible
            return
        overrides = tuple(kept["overrides"])
        job = Job(self._compose(overrides), overrides)
        if _key(job.config) in self._first:
            return
        of = self._of(Trial(self._study.optuna, frozen._trial_id), job)
        if self._recorder.is_unfinished(of.k) and self._recorder.take_up([of.k]):
            self._recorder.prune(of.k)  # which was decided, but not done
        elif self._recorder.outcome(of.k) is None:
            values = {key: kept[key] for key in ("status", "metrics", "reason", "pruned_at")}
            self._recorder.know(of.k, Outcome(job.config, of.name, overrides, stored=True, **values))

    def _wait(self, of: _Trial) -> None:
        """Let a trial wait for a worker that brings it to its next rung."""
        trainer = of.job.config.trainer
        next_rung = next((r for r in rungs(self._settings, trainer.epochs) if r > of.promoted_at), None)
        stream = (of.job.config.data, trainer.device, trainer.precision)
        self._waiting.setdefault((of.promoted_at, next_rung, stream), []).append(of)

    def _judge(self, trials: Sequence[_Trial]) -> None:
        """Tell what came of trials; of those at a rung, which are promoted, now that all are there."""
        for of in trials:
            self._report(of)
        better, pruned = -1 if self._settings.maximizes else 1, []
        for of in sorted(trials, key=lambda of: (better * (self._values(of) or [0.0])[-1], of.trial.number)):
            if outcome := self._recorder.outcome(of.k):
                self._tell(of, outcome)
            elif of.trial.should_prune():
                history = self._recorder.history(of.k)
                outcome = Outcome(
                    of.job.config,
                    of.name,
                    of.job.overrides,
                    "FINISHED",
                    history.summary(),
                    pruned_at=history.epochs,
                )
                self._tell(of, outcome)
                pruned.append(of.k)
            else:
                of.promoted_at = self._recorder.history(of.k).epochs
                of.trial.set_user_attr(PROMOTED, of.promoted_at)
                self._wait(of)
        self._study.sync()  # before runs are given up, or a kill in between would leave nothing to go on with
        for k in pruned:
            self._recorder.prune(k)

    def _values(self, of: _Trial) -> list[float]:
        """The metric after each epoch."""
        measure = self._settings.metric.removeprefix("val/")
        return [getattr(evaluation, measure) for evaluation in self._recorder.history(of.k).of("val")]

    def _report(self, of: _Trial) -> None:
        """Tell the study the metric after each epoch that it has not heard of."""
        values = self._values(of)
        for epochs, value in enumerate(values[of.reported :], start=of.reported + 1):
            of.trial.report(value, epochs)
        of.reported = max(of.reported, len(values))

    def _tell(self, of: _Trial, outcome: Outcome) -> None:
        kept = {
            "overrides": of.job.overrides,
            "status": outcome.status,
            "metrics": dict(outcome.metrics),
            "reason": outcome.reason,
            "pruned_at": outcome.pruned_at,
        }
        of.trial.set_user_attr(OUTCOME, kept)
        value = outcome.metrics.get(self._settings.metric)
        if outcome.status == "FINISHED" and outcome.pruned_at is None and value is not None:
            self._study.optuna.tell(of.trial, value)
        elif outcome.pruned_at is not None or outcome.reason.startswith(DIVERGED):
            self._study.optuna.tell(of.trial, state=TrialState.PRUNED)  # the sampler learns from it
        else:
            self._study.optuna.tell(of.trial, state=TrialState.FAIL)
        self._trials.pop(of.k, None)
        for twin in of.twins:
            self._report(twin)
            self._tell(twin, outcome)


def _key(config: RunConfig) -> str:
    return config.run_key(datasets.load(config.data).digest)


def _named(override: str) -> str:
    """`optim.lr=0.031622776` → `lr=0.03162`."""
    key, _, value = override.partition("=")
    if re.fullmatch(r"-?\d*\.\d+(e-?\d+)?|-?\d+e-?\d+", value):
        value = f"{float(value):.4g}"
    return f"{key.rpartition('.')[2]}={value}"
