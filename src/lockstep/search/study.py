"""A search's Optuna study, stored in `outputs/studies/`, which the same command continues."""

import json
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from lockstep.config.search_config import SearchConfig
from lockstep.recovery.claims import Claims
from lockstep.recovery.journal import Journal
from lockstep.search import halving

FILE = "optuna.log"


def studies() -> Path:
    """Return the folder that holds each study's folder."""
    return Path(os.environ.get("LOCKSTEP_ROOT", ".")).absolute() / "outputs" / "studies"


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
        epochs: the epochs of a trial that isn't pruned.
    """

    def __init__(self, folder: Path, search: SearchConfig, epochs: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._search, self._journal = search, Journal(folder / FILE)
        self._journal.mend()  # a kill may have left an incomplete last line
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self._storage = JournalStorage(_OneWriter(folder / FILE))
        self.optuna = optuna.create_study(
            storage=self._storage,
            pruner=halving.pruner(search, epochs),
            study_name=folder.name,
            direction="maximize" if search.maximizes else "minimize",
            load_if_exists=True,
        )

    def __len__(self) -> int:
        started = [state for state in TrialState if state != TrialState.WAITING]
        return len(self.optuna.get_trials(deepcopy=False, states=started))

    def sync(self) -> None:
        """Sync the file to disk, so that it survives a power cut."""
        self._journal.sync()

    def ask(self) -> Trial:
        """Return a new trial."""
        self.optuna.sampler = _sampler(self._search, len(self))
        return self.optuna.ask()

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


class _OneWriter(BaseJournalBackend):
    """Optuna's journal file for a single writer, synced only by `Study.sync`.

    Optuna's own backend takes a lock and syncs the file about 10 times per trial.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.touch()
        self._entries: list[dict[str, Any]] = []
        self._read = 0  # bytes

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Return the entries from a number on, as `BaseJournalBackend` requires."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                self._entries.append(json.loads(line))
                self._read += len(line)
        return self._entries[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries."""
        lines = "".join(f"{json.dumps(entry, separators=(',', ':'))}\n" for entry in logs)
        with self._path.open("ab") as file:
            file.write(lines.encode())


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
