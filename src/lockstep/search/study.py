"""A search's memory: an Optuna study in `outputs/studies/`, which the same command goes on with."""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from lockstep.config.schema import SearchConfig
from lockstep.recovery.claims import Claims
from lockstep.recovery.journal import Journal
from lockstep.search import halving

FILE = "optuna.log"


def studies() -> Path:
    """The folder of all studies, which has one for each."""
    return Path(os.environ.get("LOCKSTEP_ROOT", ".")).absolute() / "outputs" / "studies"


@contextmanager
def claimed(name: str) -> Iterator[Path]:
    """The folder of the study `name`, which no other process uses meanwhile: it is waited for."""
    claims = Claims(studies() / "claims")
    claims.wait_for(name)
    try:
        yield studies() / name
    finally:
        claims.release(name)


class Study:
    """The trials of one search, told and to be told.

    Any of Optuna's tools opens its file: optuna.storages.journal.JournalFileBackend.

    Args:
        folder: claimed by this process.
        epochs: of a trial that is not given up.
    """

    def __init__(self, folder: Path, search: SearchConfig, epochs: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        Journal(path).mend()  # a kill may have left a last line that is not whole
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self._search = search
        self._journal = Journal(path)
        self.optuna = optuna.create_study(
            storage=JournalStorage(_OneWriter(str(path))),
            pruner=halving.pruner(search, epochs),
            study_name=folder.name,
            direction="maximize" if search.maximizes else "minimize",
            load_if_exists=True,
        )

    def __len__(self) -> int:
        return len(self.optuna.get_trials(deepcopy=False))

    def sync(self) -> None:
        """Have the disk keep all that was written so far, come what may."""
        self._journal.sync()

    def ask(self) -> Trial:
        """A new trial."""
        self.optuna.sampler = _sampler(self._search, len(self))
        return self.optuna.ask()

    def running(self) -> list[Trial]:
        """Trials that were not told yet, as an earlier command left them."""
        trials = []
        for frozen in self.optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self.optuna.sampler = _sampler(self._search, frozen.number)  # it may not have been asked all
            trials.append(Trial(self.optuna, frozen._trial_id))
        return trials


class _OneWriter(JournalFileBackend):
    """Optuna's journal file, written by one process alone and brought to the disk when it says so: Optuna's
    own takes a lock and waits for the disk some ten times a trial."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(f"{json.dumps(entry, separators=(',', ':'))}\n" for entry in logs)
        with open(self._file_path, "ab") as file:
            file.write(lines.encode())


def _sampler(search: SearchConfig, number: int) -> BaseSampler:
    """What proposes trial `number`: seeded anew for each, so that a search that goes on proposes the same."""
    seed = (search.seed * 1_000_003 + number) % 2**32
    if search.sampler == "tpe":
        return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    if search.sampler == "gp":
        return GPSampler(seed=seed, warn_independent_sampling=False)
    if search.sampler == "cmaes":
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return RandomSampler(seed=seed)
