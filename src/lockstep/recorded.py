"""What `lockstep.sweep`, `search` and `load` return: a sweep and its runs, as the store has them."""

import io
import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.config.errors import Refused
from lockstep.config.identity import SEEDS
from lockstep.config.schema import RunConfig
from lockstep.recovery.temporary import temporary_folder
from lockstep.results.run_result import RunResult
from lockstep.results.winner import Standings
from lockstep.terminal import console as terminal
from lockstep.terminal import tables
from lockstep.terminal.console import PlainConsole
from lockstep.tracking import sweeps
from lockstep.tracking.store import Store
from lockstep.training import artifacts

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A recorded run.

    Attributes:
        id: its MLflow run.
        name: that the sweep gave it.
        status: FINISHED, FAILED, KILLED or RUNNING.
        reason: why it did not finish, empty if it did.
        metrics: last and best figures by name, as in MLflow.
        is_stored: whether an earlier call or command trained it.
    """

    def __init__(self, store: Store, result: RunResult) -> None:
        self._store, self._result = store, result
        self.id, self.name = str(result.run_id), result.name
        self.status, self.reason = result.status, result.reason
        self.metrics, self.is_stored = dict(result.metrics), result.is_stored

    @cached_property
    def config(self) -> RunConfig:
        """All its settings: `run.config.optim.lr`.

        Raises:
            Refused: if the store has no config of it: the run failed before it was written.
        """
        with temporary_folder() as folder:
            return RunConfig.from_yaml(self._artifact(artifacts.CONFIG, folder), self._store.uri)

    def _artifact(self, name: str, folder: Path) -> Path:
        path = sweeps.download(self._store, self._result, name, folder)
        if path is None:
            raise Refused([f"{self.name} ({self.id}): {self.status}; the store has no {name} of it"])
        return path

    def __repr__(self) -> str:
        figures = [f"{key} {self.metrics[key]:.4f}" for key in _SHOWN if key in self.metrics]
        return f"<Run {self.id}: {self.name}, {', '.join([self.status, *figures])}>"


_SHOWN = ("val/accuracy", "test/accuracy")


class Sweep:
    """A recorded sweep or search.

    Attributes:
        id: the MLflow run of its parent.
        name: as in MLflow.
        runs: in the order in which they were asked for.
        winner: the run that is recorded as the best; of repeats, the one with the lowest seed. None if no run
            has finished.
    """

    def __init__(self, store: Store, recorded: sweeps.Sweep) -> None:
        self._recorded = recorded
        self.id, self.name = recorded.run_id, recorded.name
        self.runs = tuple(Run(store, result) for result in recorded.runs)
        best = recorded.winner and (recorded.stored_winner or recorded.winner.representative.run_id)
        self.winner = next((run for run in self.runs if run.id == best), None)

    @classmethod
    def of(cls, store: Store, standings: Standings) -> "Sweep":
        """Return the sweep whose runs have just ended in these standings."""
        parent = standings.run_id or _parent_of(store, standings.runs[0])
        stored = {run.run_id for run in standings.runs if run.is_stored}
        recorded = sweeps.read(store, parent)
        runs = tuple(replace(run, is_stored=run.run_id in stored) for run in recorded.runs)
        return cls(store, replace(recorded, standings=Standings(runs, recorded.ranking, parent)))

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row for each run: name, swept values, metrics, status, seconds of training, run id."""
        import pandas as pd

        runs = self._recorded.runs
        seeds = [seed for seed in SEEDS if len({run.params.get(seed) for run in runs}) > 1]
        keys = dict.fromkeys([*self._recorded.swept, *seeds])
        every = sorted({key for run in runs for key in run.metrics if key != _SECONDS})
        metrics = dict.fromkeys([self._recorded.metric, *every])
        rows = [
            {
                "name": run.name,
                **{key: _value(run.params.get(key)) for key in keys},
                **{key: run.metrics.get(key) for key in metrics},
                "status": run.status,
                "seconds": run.metrics.get(_SECONDS),
                "run_id": run.run_id,
            }
            for run in runs
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        recorded = self._recorded
        text, width = io.StringIO(), terminal.console.width
        console = PlainConsole(file=text, width=width)
        console.print(tables.leaderboard(recorded.runs, recorded.standings.rows, recorded.metric, width))
        lines = text.getvalue().splitlines()
        return "\n".join([*(line.rstrip() for line in lines), f"{self.name}: {self.id}"])


def _parent_of(store: Store, run: RunResult) -> str:
    """Return the parent of a run that another process has trained, in the same sweep."""
    return str(store.client.get_run(str(run.run_id)).data.tags["mlflow.parentRunId"])


_SECONDS = "time/train_seconds"


def _value(text: str | None) -> Any:
    """Return a setting's value: the store has it as text."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
