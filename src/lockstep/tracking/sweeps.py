"""A sweep in the store: which runs belong to it and which is best, recorded and read back."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mlflow.entities import Metric, Run

from lockstep.config import places
from lockstep.config.identity import SEEDS, changes_numbers, is_identity
from lockstep.recovery.temporary import temporary_folder
from lockstep.results.run_result import RunResult
from lockstep.results.winner import SAME, Ranking, Repeats, Standings
from lockstep.tracking import links
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.tracking.tags import ENVIRONMENT, KIND, OVERRIDES, PRUNED_AT, REASON, RUN_KEY, description

MEMBERS = "members.json"
"""The parent run's artifact: the ids of the sweep's runs, also of runs that earlier sweeps trained, the names
that this sweep gave them, and the ids of their experiments."""

WINNER, WINNER_RUNS, RANKING = "lockstep.winner", "lockstep.winner_runs", "lockstep.ranking"
"""The parent run's tags: the winner's run id; the run ids of its repeats, joined by commas; the ranking."""

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

    @property
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
) -> None:
    """Record with a sweep's parent run which runs belong to it, in which experiments, and which is best.

    Args:
        names: each run's names in the sweep, by its id, in the order in which they were asked for.
        winner: the best run's id, None if there is none; and those of its `repeats`.
        command: that trained it, quoted for a shell; empty where no shell was used.
    """
    listed = {
        "experiments": [store.experiment_id(name) for name in experiments],
        "runs": list(names),
        "names": [SAME.join(dict.fromkeys(asked)) for asked in names.values()],
    }
    with temporary_folder() as folder:
        path = folder / MEMBERS
        path.write_text(json.dumps(listed, indent=2))
        Recorded(store.client, run_id).artifact(path)
    store.client.set_tag(run_id, RANKING, ranking.to_json())
    if command:
        store.client.set_tag(run_id, COMMAND, command)
    if winner is not None:
        store.client.set_tag(run_id, WINNER, winner)
        store.client.set_tag(run_id, WINNER_RUNS, ",".join(repeats))


def describe(store: Store, sweep: Sweep, note: str) -> None:
    """Give the parent run a description, as MLflow's UI shows it, and the sweep's own metrics."""
    recorded = store.client.get_run(sweep.run_id).data
    for key, text in description(recorded.tags, note).items():
        store.client.set_tag(sweep.run_id, key, text)
    now, known = time.time_ns() // 1_000_000, recorded.metrics
    new = {key: value for key, value in sweep.summary.items() if known.get(key) != value}
    store.client.log_batch(sweep.run_id, [Metric(key, value, now, 0) for key, value in new.items()])


def read(store: Store, run_id: str) -> Sweep:
    """Return the sweep of a parent run.

    Raises:
        MlflowException: if there is no such run.
        ValueError: if it is no sweep's.
    """
    parent = store.client.get_run(run_id)
    tags = parent.data.tags
    if tags.get(KIND) != "sweep":
        raise ValueError(f"{run_id}: this run is not a sweep's parent")
    found, names = _members(store, parent)
    runs = tuple(replace(result_of(run), name=names.get(run.info.run_id, run.info.run_name)) for run in found)
    ranking = Ranking.from_json(tags[RANKING]) if RANKING in tags else Ranking.of(runs)
    ended_at = parent.info.end_time or max(
        [run.info.end_time or run.info.start_time for run in found], default=parent.info.start_time
    )
    return Sweep(
        run_id=run_id,
        name=parent.info.run_name or run_id,
        experiment=store.client.get_experiment(parent.info.experiment_id).name,
        experiment_ids=tuple(dict.fromkeys(run.info.experiment_id for run in found)),
        search=_search(run_id, found),
        command=tags.get(COMMAND, f"{places.program()} -m {tags.get(OVERRIDES, '')}"),
        seconds=(ended_at - parent.info.start_time) / 1e3,
        environment=json.loads(tags.get(ENVIRONMENT, "{}")),
        standings=Standings(runs, ranking),
        swept=_swept(runs),
        stored_winner=tags.get(WINNER),
    )


def result_of(run: Run) -> RunResult:
    """Return a recorded run's result."""
    tags: Mapping[str, str] = run.data.tags
    pruned_at = tags.get(PRUNED_AT)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return RunResult(
        name=run.info.run_name,
        run_key=tags.get(RUN_KEY, run.info.run_id),
        data_digest=inputs[0].dataset.digest if inputs else "",
        params=run.data.params,
        overrides=tuple(tags.get(OVERRIDES, "").split()),
        status=run.info.status,
        metrics=run.data.metrics,
        reason=tags.get(REASON, ""),
        pruned_at=None if pruned_at is None else int(pruned_at),
        is_stored=True,
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
    )


def curve(store: Store, run: RunResult, metric: str) -> list[tuple[int, float]]:
    """Return a metric's values, each with the training iterations done."""
    points = store.client.get_metric_history(str(run.run_id), metric)
    return sorted((point.step, point.value) for point in points)


def download(store: Store, run: RunResult, artifact: str, folder: Path) -> Path | None:
    """Return a copy of one artifact below `folder`, None where the run has none of that name."""
    run_id, above = str(run.run_id), str(Path(artifact).parent)
    listed = store.client.list_artifacts(run_id, None if above == "." else above)
    if artifact not in {entry.path for entry in listed}:
        return None
    (folder / run_id).mkdir(exist_ok=True)
    return Path(store.client.download_artifacts(run_id, artifact, str(folder / run_id)))


def _members(store: Store, parent: Run) -> tuple[list[Run], dict[str, str]]:
    """Return a sweep's members, and the names that it gave them by run id.

    A sweep that has not ended, or one of version 0.1.0, has no list: return the
    runs below its parent, and version 0.1.0's list of runs found in the store."""
    run_id, experiment_id = parent.info.run_id, parent.info.experiment_id
    artifacts = {entry.path for entry in store.client.list_artifacts(run_id)}
    if MEMBERS in artifacts:
        listed = _json(store, run_id, MEMBERS)
        names = dict(zip(listed["runs"], listed.get("names", ()), strict=False))
        return _runs(store, listed["experiments"], listed["runs"]), names
    started = f"tags.`mlflow.parentRunId` = '{run_id}'"
    runs = store.search([experiment_id], started, order_by=["attributes.start_time ASC"])
    if STORED_RUNS in artifacts:
        stored = _json(store, run_id, STORED_RUNS)["runs"]
        runs += [store.client.get_run(run) for run in stored if store.is_active(run)]
    return runs, {}


def _runs(store: Store, experiment_ids: Sequence[str], run_ids: Sequence[str]) -> list[Run]:
    """Return the runs with these ids, in this order, without deleted ones."""
    found: dict[str, Run] = {}
    for start in range(0, len(run_ids), AT_ONCE):
        some = store.search(experiment_ids, _any_of(run_ids[start : start + AT_ONCE]))
        found |= {run.info.run_id: run for run in some}
    return [found[run_id] for run_id in run_ids if run_id in found]


def _search(parent: str, runs: Sequence[Run]) -> str:
    if all(run.data.tags.get("mlflow.parentRunId") == parent for run in runs):
        return f"tags.mlflow.parentRunId = '{parent}'"
    return _any_of([run.info.run_id for run in runs])


def _any_of(run_ids: Sequence[str]) -> str:
    return f"attributes.run_id IN ({', '.join(repr(run_id) for run_id in run_ids)})"


def _json(store: Store, run_id: str, artifact: str) -> dict[str, list[str]]:
    with temporary_folder() as folder:
        content = Path(store.client.download_artifacts(run_id, artifact, str(folder))).read_text()
    listed: dict[str, list[str]] = json.loads(content)
    return listed


def _swept(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Return typed keys with different values that change numbers; a value that follows from another key
    isn't swept. Where the runs' data is the same, neither is its location."""
    same_data = len({run.data_digest for run in runs}) == 1
    wanted = is_identity if same_data else changes_numbers
    keys = dict.fromkeys(key for run in runs for key in run.params if wanted(key) and key not in SEEDS)
    differ = [key for key in keys if len({run.params.get(key, "") for run in runs}) > 1]
    typed = dict.fromkeys(
        override.partition("=")[0].lstrip("+") for run in runs for override in run.overrides
    )
    return tuple(key for key in typed if key in differ) or tuple(differ)
