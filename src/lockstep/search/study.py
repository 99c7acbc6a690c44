"""A search's Optuna study, stored in `outputs/studies/`, which the same command continues."""

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from lockstep.config.places import outputs
from lockstep.config.search_config import SearchConfig
from lockstep.recovery.claims import Claims
from lockstep.search import halving
from lockstep.search.rules import Rules
from lockstep.search.study_log import StudyLog

FILE = "optuna.log"


def studies() -> Path:
    """Return the folder that holds each study's folder."""
    return outputs() / "studies"


@contextmanager
def claimed(name: str) -> Iterator[Path]:
    """Claim the study `name`, waiting for other processes, and yield its folder."""
    claims = Claims(studies() / "claims")
    claims.wait_for(name, "carries out the same search")
    try:
        yield studies() / name
    finally:
        claims.release(name)


class Study:
    """The trials of one search. Optuna's own tools open its file with `JournalFileBackend`.

    Args:
        folder: claimed by this process.
    """

    def __init__(self, folder: Path, rules: Rules) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._search, self._log = rules.settings, StudyLog(folder / FILE)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self._storage = JournalStorage(self._log)
        self.optuna = optuna.create_study(
            storage=self._storage,
            pruner=halving.pruner(rules),
            study_name=folder.name,
            direction="maximize" if self._search.maximizes else "minimize",
            load_if_exists=True,
        )

    def __len__(self) -> int:
        started = [state for state in TrialState if state != TrialState.WAITING]
        return len(self.optuna.get_trials(deepcopy=False, states=started))

    def sync(self) -> None:
        """Sync the file to disk, so that it survives a power cut."""
        self._log.sync()

    def ask(self, suggest: Callable[[Trial], object]) -> Trial:
        """Return a new trial with all of its values.

        They are recorded at once: a sampler would go on from half of them with other values.

        Args:
            suggest: asks the trial for its values.
        """
        self.optuna.sampler = _sampler(self._search, len(self))
        with self._log.as_one_part():
            trial = self.optuna.ask()
            suggest(trial)
        return trial

    def enqueue_one_of(self, points: Sequence[dict[str, Any]]) -> None:
        """Let the next trial be one of these points, drawn by a generator of its own; values by key."""
        if points:
            drawn = random.Random(f"{self._search.seed} {len(self)}")
            self.optuna.enqueue_trial(drawn.choice(points))

    def running(self) -> list[Trial]:
        """Return the trials that an earlier command left unfinished."""
        trials = []
        for frozen in self.optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self.optuna.sampler = _sampler(self._search, frozen.number)  # for values not yet suggested
            trials.append(self.trial(frozen))
        return trials

    def trial(self, frozen: FrozenTrial) -> Trial:
        """Return a stored trial as one that accepts reports and results."""
        study_id = self._storage.get_study_id_from_name(self.optuna.study_name)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, frozen.number)
        return Trial(self.optuna, trial_id)


def _sampler(search: SearchConfig, number: int) -> BaseSampler:
    """Return the sampler of trial `number`, seeded per trial so that a resumed search proposes the same."""
    seed = (search.seed * 1_000_003 + number) % 2**32
    if search.sampler == "tpe":
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    if search.sampler == "gp":
        return GPSampler(seed=seed, warn_independent_sampling=False)
    if search.sampler == "cmaes":
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return RandomSampler(seed=seed)
