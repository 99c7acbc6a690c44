"""How MLflow's UI shows a sweep: its description, its own metrics, its runs' colours, its view."""

import time
from dataclasses import replace

from mlflow.entities import Metric

from lockstep.tracking import _mlflow_compat, links
from lockstep.tracking.colors import COLOR
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.tracking.sweeps import Sweep
from lockstep.tracking.tags import description

COLORED = 20
"""The best runs that keep their colour in the store. MLflow's charts show at most so many, unless told."""


def describe(store: Store, sweep: Sweep, note: str) -> Sweep:
    """Record how the UI shows a sweep; return the sweep with its view.

    Args:
        note: the parent run's description.
    """
    recorded = store.client.get_run(sweep.run_id).data
    Recorded(store.client, sweep.run_id).tag(description(recorded.tags, note))
    for run_id, color in list(sweep.colors.items())[:COLORED]:
        Recorded(store.client, run_id).tag({COLOR: color})
    now, known = time.time_ns() // 1_000_000, recorded.metrics
    new = {key: value for key, value in sweep.summary.items() if known.get(key) != value}
    store.client.log_batch(sweep.run_id, [Metric(key, value, now, 0) for key, value in new.items()])
    return replace(sweep, view=_record_view(store, sweep))


def _record_view(store: Store, sweep: Sweep) -> str:
    """Record a sweep's view, unless its runs are in several experiments; return its key."""
    if len(sweep.experiment_ids) != 1:
        return ""
    metrics = {metric for run in sweep.runs for metric in run.metrics}
    shown = [key for key in dict.fromkeys((sweep.metric, "test/accuracy")) if key in metrics]
    columns = [f"metrics.`{key}`" for key in shown] + [f"params.`{key}`" for key in sweep.swept]
    state = _mlflow_compat.view_state(sweep.search, sweep.metric, sweep.ranking.maximize, columns, metrics)
    key = links.view_key(sweep.run_id)
    store.client.set_experiment_tag(sweep.experiment_ids[0], _mlflow_compat.VIEW + key, state)
    return key if state else ""
