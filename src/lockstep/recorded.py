"""What `lockstep.sweep`, `search` and `load` return: a sweep and its runs, as the store has them."""

import io
import json
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from rich.table import Table

from lockstep import notebook
from lockstep.config.errors import Refused, nearest
from lockstep.config.identity import SEEDS
from lockstep.config.model_config import ModuleConfig
from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.data.datasets import Dataset
from lockstep.ensemble import Ensemble
from lockstep.pictures import run_pictures
from lockstep.pictures.representations import names
from lockstep.recovery.temporary import temporary_folder
from lockstep.results import history_file, predictions_file, run_files
from lockstep.results.run_result import RunResult, of_earlier_versions
from lockstep.results.winner import Standings
from lockstep.terminal import console as terminal
from lockstep.terminal import tables
from lockstep.terminal.console import FILE_WIDTH, PlainConsole
from lockstep.tracking import recorded_data, sweeps
from lockstep.tracking.errors import message_of
from lockstep.tracking.recorded_run import without_weights
from lockstep.tracking.store import Store
from lockstep.training import artifacts, network_code
from lockstep.training.networks import Network

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
        stopped_at: the epochs after which it stopped early, None if it did not.
        restored_epoch: the epoch whose weights and figures it has, None without early stopping.
        numerics_version: that trained it; an earlier one's last digits may differ from today's.
    """

    def __init__(self, store: Store, result: RunResult) -> None:
        self._store, self._result = store, result
        self.id, self.name = str(result.run_id), result.name
        self.status, self.reason = result.status, result.reason
        self.metrics, self.is_stored = dict(result.metrics), result.is_stored
        self.stopped_at, self.restored_epoch = result.stopped_at, result.restored_epoch
        self.numerics_version = result.numerics_version

    @cached_property
    def config(self) -> RunConfig:
        """All its settings: `run.config.optim.lr`.

        Raises:
            Refused: if the store has no config of it: the run failed before it was written.
        """
        with temporary_folder() as folder:
            return RunConfig.from_yaml(self._artifact(run_files.CONFIG, folder), self._store.uri)

    def history(self) -> "pd.DataFrame":
        """Return the scores of each iteration (split `train`), and of each evaluation (`test`, `val`).

        Evaluations stand at the last iteration of their epoch.
        """
        import pandas as pd

        with temporary_folder() as folder:
            rows = pd.read_parquet(self._artifact(history_file.FILE, folder))
        ends = sorted(rows.loc[rows["split"] != "train", "iteration"].unique())
        rows.insert(0, "epoch", np.searchsorted(ends, rows["iteration"]) + 1)
        return rows

    def dataset(self) -> Dataset:
        """Return the data that it was trained on, scaled: `x_train`, `y_train`, `x_test`, `y_test`.

        Raises:
            Refused: if that is not available any more.
        """
        source = recorded_data.load(self._store.client.get_run(self.id), self.config)
        return datasets.mapped(source.files())

    def network(self, code: str | Path | None = None) -> Network:
        """Return its trained network, a torch.nn.Module in eval mode on the CPU: rows N x F to logits N x C.

        Args:
            code: the file of the user's own network, which is run, unless a call of this process has done
                so; a store's copy is not. The network's `module` is that of the user's class or function.

        Raises:
            Refused: if it has none: it was pruned or failed, its data is not available any more, or its code
                is not that in the file.
        """
        if code is not None and isinstance(self.config.model, ModuleConfig):
            network_code.allow(self.config.model, str(code))
        with temporary_folder() as folder:
            with suppress(Refused):  # most networks have none
                self._artifact(run_files.BUFFERS, folder)
            try:
                weights = self._artifact(run_files.WEIGHTS, folder)
            except Refused as refused:
                if self.config.tracking.weights == "all":
                    raise
                raise Refused([without_weights(self.name, self.config)]) from refused
            return artifacts.read_network(self.config, self.dataset().description, weights).eval()

    def figure(self, picture: str) -> Figure:
        """Return one of its pictures as a matplotlib figure, as it is among its artifacts.

        Args:
            picture: `loss`, `accuracy`, `samples`, `confusion`, `mistakes`, or a feature space: `input`,
                `hidden1`, ...

        Raises:
            Refused: if there is no such picture, or the store lacks what it shows.
        """
        notebook.show_figures()
        if picture in run_pictures.CURVES:
            with temporary_folder() as folder:
                history = history_file.read(self._artifact(history_file.FILE, folder).parent)
            return run_pictures.curve(picture, self.config, history, self.name)
        dataset = self.dataset()
        if picture == "samples":
            return run_pictures.samples(dataset)
        if picture in run_pictures.OF_MISTAKES:
            with temporary_folder() as folder:
                test = predictions_file.read(self._artifact(predictions_file.FILE, folder))["test"]
            return run_pictures.of_mistakes(picture, test, dataset, self.name)
        network = self.network()
        spaces = ["input", *names(network, dataset)]
        if picture not in spaces:
            known = [*run_pictures.CURVES, "samples", *run_pictures.OF_MISTAKES, *spaces]
            raise Refused([f"figure {picture}: not one of {', '.join(known)}{nearest(picture, known)}"])
        return run_pictures.space(picture, network, dataset, self.name)

    def _artifact(self, name: str, folder: Path) -> Path:
        """Return a copy of an artifact below `folder`."""
        # Not by the run's id: MLflow 3.17 would look in its default store for a logged model named `model`.
        uri = f"{self._store.client.get_run(self.id).info.artifact_uri}/{name}"
        try:
            return Path(download_artifacts(uri, dst_path=str(folder), tracking_uri=self._store.uri))
        except (MlflowException, OSError) as error:
            which = f"{self.name} ({self.id}, {self.status})"
            raise Refused([f"{which}: {name} can't be downloaded: {message_of(error)}"]) from error

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
        self._store, self._recorded = store, recorded
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

    def figure(self, picture: str) -> Figure:
        """Return one of the winner's pictures, see `Run.figure`.

        Raises:
            Refused: if there is no winner, or no such picture.
        """
        if self.winner is None:
            raise Refused([f"{self.name} ({self.id}): no run has finished"])
        return self.winner.figure(picture)

    def ensemble(self) -> Ensemble:
        """Choose runs whose averaged probabilities are best on the validation set; see `Ensemble`.

        Raises:
            Refused: if there is no validation split, or the runs have no predictions.
        """
        return Ensemble.of(self._store, self._recorded, self.runs)

    def _leaderboard(self, width: int) -> Table:
        """Return the terminal's table, with each run's seconds, whoever trained it."""
        runs = tuple(replace(run, is_stored=False) for run in self._recorded.runs)
        standings = Standings(runs, self._recorded.ranking)
        return tables.leaderboard(runs, standings.rows, standings.ranking.metric, width)

    def _html(self) -> str:
        best = self._recorded.winner
        table = notebook.table_html(self._leaderboard(FILE_WIDTH), best.name if best else None)
        said = [of_earlier_versions(self._recorded.runs), f"{self.name}: {self.id}"]
        return table + "".join(f"<p>{escape(line)}</p>" for line in said if line)

    def _repr_html_(self) -> str:
        curves = notebook.curves(self._store, self._recorded)
        return self._html() + (notebook.image_html(curves) if curves else "")

    def _ipython_display_(self) -> None:
        notebook.display(self._html(), notebook.curves(self._store, self._recorded), repr(self))

    def __repr__(self) -> str:
        text = io.StringIO()
        width = terminal.console.width
        PlainConsole(file=text, width=width, force_jupyter=False).print(self._leaderboard(width))
        lines = text.getvalue().splitlines()
        said = filter(None, [of_earlier_versions(self._recorded.runs)])
        return "\n".join([*(line.rstrip() for line in lines), *said, f"{self.name}: {self.id}"])


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
