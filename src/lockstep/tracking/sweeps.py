"""A sweep in the store: which runs belong to it and which is best, recorded and read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from lockstep.config import places
from lockstep.config.identity import SEEDS, changes_numbers, is_identity
from lockstep.recovery.temporary import temporary_folder
from lockstep.results.run_result import RunResult
from lockstep.results.winner import SAME, Ranking, Repeats, Standings
from lockstep.tracking import _mlflow_tables, links
from lockstep.tracking.colors import colors_of
from lockstep.tracking.patience import patient
from lockstep.tracking.recorded_run import result_of
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.tracking.tags import ENVIRONMENT, KIND, OVERRIDES

MEMBERS = "members.json"
"""The parent run's artifact: the ids of the sweep's runs, also of runs that earlier sweeps trained, the names
that this sweep gave them, the ids of their experiments, and the scales on which keys were searched."""

WINNER, WINNER_RUNS, RANKING = "lockstep.winner", "lockstep.winner_runs", "lockstep.ranking"
"""The parent run's tags: the winner's run id; the run ids of its repeats (the first MOST_REPEATS), joined by
commas; the ranking."""

MOST_REPEATS = 240
"""Ids that fit in a tag, whose longest value has 8,000 characters."""

COMMAND = "lockstep.command"
"""The parent run's tag for the command, quoted for a shell."""

STORED_RUNS = "stored_runs.json"
"""Version 0.1.0's artifact instead of MEMBERS: the ids of runs that earlier sweeps trained."""

AT_ONCE = 500
"""Runs asked for in one query; MLflow's parser takes some 3,000."""


@dataclass(frozen=True)
class Sweep:
    """A parent run and the sweep's runs.

    Attributes:
        search: finds the runs in MLflow, in the experiments `experiment_ids`.
        command: repeats it.
        swept: keys with different values, without seeds.
        stored_winner: the run id of the best run, None where that was not recorded.
        seconds: from its start to its end, or to now.
        started_at: in milliseconds of Unix time.
        commit: the git commit that trained it; empty where there was none.
        colors: of the runs that are compared, by their ids.
        view: the key of its view in MLflow's UI, see lockstep.tracking.links.view_of.
        scales: `log` or `linear`, by key, where a search declared it; None where that was not recorded.
    """

    run_id: str
    name: str
    experiment: str
    experiment_ids: tuple[str, ...]
    search: str
    command: str
    seconds: float
    environment: Mapping[str, str]
    standings: Standings
    swept: tuple[str, ...]
    stored_winner: str | None
    colors: Mapping[str, str] = field(default_factory=dict)
    view: str = ""
    scales: Mapping[str, str] | None = None
    started_at: int = 0
    commit: str = ""

    @property
    def ranking(self) -> Ranking:
        """The ranking of its runs."""
        return self.standings.ranking

    @property
    def metric(self) -> str:
        """The metric that ranks its runs."""
        return self.ranking.metric

    @property
    def runs(self) -> tuple[RunResult, ...]:
        """Its runs, in the order in which they were asked for."""
        return self.standings.runs

    @cached_property
    def rows(self) -> list[Repeats]:
        """Complete runs that have the metric, repeats together, best first."""
        return [row for row in self.standings.rows if row.mean(self.metric) is not None]

    @cached_property
    def winner(self) -> Repeats | None:
        """The best run with its repeats, as recorded; as ranked now where nothing was recorded."""
        for row in self.rows:
            if any(run.run_id == self.stored_winner for run in row.runs):
                return row
        return self.standings.winner

    @property
    def compared(self) -> list[RunResult]:
        """Runs with the metric: complete runs, then pruned runs with their last value; best first."""
        sign = -1 if self.ranking.maximize else 1
        pruned = [run for run in self.pruned if self.metric in run.metrics]
        pruned.sort(key=lambda run: sign * run.metrics[self.metric])
        return [run for row in self.rows for run in row.runs] + pruned

    @property
    def summary(self) -> dict[str, float]:
        """The sweep's own metrics: how many runs, and the best one's figures."""
        counts = {"runs": len(self.runs), "runs_failed": len(self.failed), "runs_pruned": len(self.pruned)}
        figures = {key: float(value) for key, value in counts.items()}
        for metric in dict.fromkeys((self.metric, "val/accuracy", "test/accuracy")):
            if self.winner is not None and (mean := self.winner.mean(metric)) is not None:
                figures[f"best/{metric}"] = mean
        return figures

    @property
    def failed(self) -> list[RunResult]:
        """Runs that did not finish."""
        return [run for run in self.runs if run.status != "FINISHED"]

    @property
    def pruned(self) -> list[RunResult]:
        """Runs that a search pruned."""
        return [run for run in self.runs if run.pruned_at is not None]

    def link(self, store: Store) -> str:
        """Return the address of all its runs in MLflow's UI, best first."""
        if self.view:
            return links.view_link(store.uri, self.experiment_ids[0], self.view)
        return links.runs_link(
            store.uri, self.experiment_ids, self.search, self.metric, self.ranking.maximize
        )


def record(
    store: Store,
    run_id: str,
    names: Mapping[str, Sequence[str]],
    experiments: Sequence[str],
    ranking: Ranking,
    winner: str | None,
    repeats: Sequence[str],
    command: str = "",
    scales: Mapping[str, str] | None = None,
) -> None:
    """Record with a sweep's parent run which runs belong to it, in which experiments, and which is best.

    Args:
        names: each run's names in the sweep, by its id, in the order in which they were asked for.
        winner: the best run's id, None if there is none; and those of its `repeats`.
        command: that trained it, quoted for a shell; empty where no shell was used.
        scales: on which keys were searched, None if that is unknown.
    """
    listed: dict[str, Any] = {
        "experiments": [store.experiment_id(name) for name in experiments],
        "runs": list(names),
        "names": [SAME.join(dict.fromkeys(asked)) for asked in names.values()],
    }
    if scales is not None:
        listed["scales"] = dict(scales)
    parent, tags = Recorded(store.client, run_id), {RANKING: ranking.to_json()}
    with temporary_folder() as folder:
        path = folder / MEMBERS
        path.write_text(json.dumps(listed, indent=2))
        parent.artifact(path)
    if command:
        tags[COMMAND] = command
    if winner is not None:
        tags |= {WINNER: winner, WINNER_RUNS: ",".join(repeats[:MOST_REPEATS])}
    parent.tag(tags)


def read(store: Store, run_id: str) -> Sweep:
    """Return the sweep of a parent run.

    Raises:
        MlflowException: if there is no such run.
        ValueError: if it is no sweep's.
    """
    parent = store.client.get_run(run_id)
    experiment, tags = store.client.get_experiment(parent.info.experiment_id), parent.data.tags
    if tags.get(KIND) != "sweep":
        raise ValueError(f"{run_id}: this run is not a sweep's parent")
    found, names, scales = _members(store, parent)
    runs = tuple(replace(result_of(run), name=names.get(run.info.run_id, run.info.run_name)) for run in found)
    ranking = Ranking.from_json(tags[RANKING]) if RANKING in tags else Ranking.of(runs)
    ended_at = parent.info.end_time or max(
        [run.info.end_time or run.info.start_time for run in found], default=parent.info.start_time
    )
    tags_of = {run.info.run_id: run.data.tags for run in found}
    sweep = Sweep(
        run_id=run_id,
        name=parent.info.run_name or run_id,
        experiment=experiment.name,
        experiment_ids=tuple(dict.fromkeys(run.info.experiment_id for run in found)),
        search=_search(run_id, found),
        command=tags.get(COMMAND, f"{places.program()} -m {tags.get(OVERRIDES, '')}"),
        seconds=(ended_at - parent.info.start_time) / 1e3,
        environment=json.loads(tags.get(ENVIRONMENT, "{}")),
        standings=Standings(runs, ranking),
        swept=_swept(runs),
        stored_winner=tags.get(WINNER),
        view=links.view_of(experiment.tags, run_id),
        scales=scales,
        started_at=parent.info.start_time,
        commit=tags.get("mlflow.source.git.commit", ""),
    )
    best_first = [str(run.run_id) for run in sweep.compared]
    return replace(sweep, colors=colors_of([(best, tags_of[best]) for best in best_first]))


def _members(store: Store, parent: Run) -> tuple[list[Run], dict[str, str], dict[str, str] | None]:
    """Return a sweep's members, the names that it gave them by run id, and its scales.

    A sweep that has not ended, or one of version 0.1.0, has no list: return the
    runs below its parent, and version 0.1.0's list of runs found in the store."""
    run_id, experiment_id = parent.info.run_id, parent.info.experiment_id
    artifacts = {entry.path for entry in store.client.list_artifacts(run_id)}
    if MEMBERS in artifacts:
        listed = _json(store, run_id, MEMBERS, "experiments", "runs")
        names = dict(zip(listed["runs"], listed.get("names", ()), strict=False))
        return _runs(store, listed["experiments"], listed["runs"]), names, listed.get("scales")
    started = f"tags.`mlflow.parentRunId` = '{run_id}'"
    runs = store.search([experiment_id], started, order_by=["attributes.start_time ASC"])
    if STORED_RUNS in artifacts:
        stored = _json(store, run_id, STORED_RUNS, "runs")["runs"]
        runs += [store.client.get_run(run) for run in stored if store.is_active(run)]
    return runs, {}, None


def _runs(store: Store, experiment_ids: Sequence[str], run_ids: Sequence[str]) -> list[Run]:
    """Return the runs with these ids, in this order, without deleted ones."""
    runs = patient(_mlflow_tables.runs_of_ids)(store.uri, run_ids)
    if runs is None:
        parts = (run_ids[start : start + AT_ONCE] for start in range(0, len(run_ids), AT_ONCE))
        runs = [run for some in parts for run in store.search(experiment_ids, _any_of(some))]
    found = {run.info.run_id: run for run in runs}
    return [found[run_id] for run_id in run_ids if run_id in found]


def _search(parent: str, runs: Sequence[Run]) -> str:
    if all(run.data.tags.get("mlflow.parentRunId") == parent for run in runs):
        return f"tags.mlflow.parentRunId = '{parent}'"
    return _any_of([run.info.run_id for run in runs])


def _any_of(run_ids: Sequence[str]) -> str:
    return f"attributes.run_id IN ({', '.join(repr(run_id) for run_id in run_ids)})"


def _json(store: Store, run_id: str, artifact: str, *lists: str) -> dict[str, Any]:
    with temporary_folder() as folder:
        content = Path(store.client.download_artifacts(run_id, artifact, str(folder))).read_text()
    try:
        read = json.loads(content)
        return {**read, **{name: [*map(str, read[name])] for name in lists}}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{artifact} of run {run_id} in the store is damaged: {error!r}") from error


def _swept(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Return typed keys with different values that change numbers; a value that follows from another key
    isn't swept. Where the runs' data is the same, neither is its location."""
    same_data = len({run.instances_digest for run in runs}) == 1
    wanted = is_identity if same_data else changes_numbers
    keys = dict.fromkeys(key for run in runs for key in run.params if wanted(key) and key not in SEEDS)
    differ = [key for key in keys if len({run.params.get(key, "") for run in runs}) > 1]
    typed = dict.fromkeys(
        override.partition("=")[0].lstrip("+") for run in runs for override in run.overrides
    )
    return tuple(key for key in typed if key in differ) or tuple(differ)
