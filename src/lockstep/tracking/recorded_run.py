"""A recorded run, read back: its result, its curves, its artifacts."""

from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Run

from lockstep.config.identity import ADDED
from lockstep.config.schema import RunConfig
from lockstep.results.run_result import RunResult
from lockstep.tracking.store import Store
from lockstep.tracking.tags import (
    DATA_POOL,
    MAJORITY,
    NUMERICS,
    OVERRIDES,
    PRUNED_AT,
    REASON,
    RESTORED_EPOCH,
    RUN_KEY,
    STOPPED_AT,
    UNTAGGED,
)


def result_of(run: Run) -> RunResult:
    """Return a recorded run's result."""
    tags: Mapping[str, str] = run.data.tags
    stopped_at, restored_epoch = (
        int(tags[tag]) if tag in tags else None for tag in (STOPPED_AT, RESTORED_EPOCH)
    )
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return RunResult(
        name=run.info.run_name,
        run_key=tags.get(RUN_KEY, run.info.run_id),
        data_digest=inputs[0].dataset.digest if inputs else "",
        pool_digest=tags.get(DATA_POOL, ""),
        majority_accuracy=float(tags[MAJORITY]) if MAJORITY in tags else None,
        params={**run.data.params, **ADDED, **run.data.params},  # in the order in which they were recorded
        overrides=tuple(tags.get(OVERRIDES, "").split()),
        status=run.info.status,
        metrics=run.data.metrics,
        reason=tags.get(REASON, ""),
        pruned_at=float(tags[PRUNED_AT]) if PRUNED_AT in tags else None,
        stopped_at=stopped_at,
        restored_epoch=restored_epoch,
        numerics_version=int(tags.get(NUMERICS, UNTAGGED)),
        is_stored=True,
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
    )


def without_weights(name: str, config: RunConfig) -> str:
    """Return a message for a run whose weights were not kept."""
    return (
        f"{name} has no weights (tracking.weights={config.tracking.weights}); to train it with them, give"
        f" tracking.weights=all rerun=true"
    )


def curve(store: Store, run: RunResult, metric: str) -> list[tuple[int, float]]:
    """Return a metric's values, each with the training iterations done.

    A restored epoch's figures, which the store has once more after the last epoch's, are left out.
    """
    points = store.client.get_metric_history(str(run.run_id), metric)
    values: dict[int, float] = {}
    for point in sorted(points, key=lambda point: (point.step, point.timestamp)):
        values.setdefault(point.step, point.value)
    return list(values.items())


def download(store: Store, run: RunResult, artifact: str, folder: Path) -> Path | None:
    """Return a copy of one artifact below `folder`, None where the run has none of that name."""
    run_id, above = str(run.run_id), str(Path(artifact).parent)
    listed = store.client.list_artifacts(run_id, None if above == "." else above)
    if artifact not in {entry.path for entry in listed}:
        return None
    (folder / run_id).mkdir(exist_ok=True)
    return Path(store.client.download_artifacts(run_id, artifact, str(folder / run_id)))
