"""Metrics of the machine, by MLflow's own monitor."""

import threading
import time
from types import SimpleNamespace

import pytest
from helpers.processes import until
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from lockstep.sweep import session
from lockstep.tracking import system_metrics
from lockstep.tracking.store import Store


@pytest.fixture
def store(uri, monkeypatch):
    """A store, and a monitor that measures often."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    return Store(uri)


def metrics_of(store, run_id):
    return {key for key in store.client.get_run(run_id).data.metrics if key.startswith("system/")}


def test_they_are_recorded_with_a_run_once_the_store_has_it(store):
    run_id = store.client.create_run(store.experiment_id("digits")).info.run_id
    known = []
    with system_metrics.recorded(store, lambda: known[0] if known else None):
        assert metrics_of(store, run_id) == set()
        known.append(run_id)
        until(lambda: metrics_of(store, run_id))
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= metrics_of(
        store, run_id
    )
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("interruption", [None, KeyboardInterrupt()])
def test_a_store_that_does_not_answer_holds_nothing_up(store, monkeypatch, interruption):
    asked, answer = threading.Event(), threading.Event()
    monkeypatch.setattr(system_metrics, "CLOSING_SECONDS", 0.1)
    monkeypatch.setattr(SystemMetricsMonitor, "monitor", lambda self: asked.set() or answer.wait(60))
    try:
        with system_metrics.recorded(store, lambda: "a" * 32):
            assert asked.wait(60)
            started = time.monotonic()
            if interruption:
                raise interruption
    except KeyboardInterrupt:
        assert interruption
    assert time.monotonic() - started < 2
    answer.set()


@pytest.mark.parametrize(("is_sweep", "run_id"), [(True, "parent"), (False, "run")])
def test_a_sweeps_are_its_parents_and_a_single_runs_its_own(monkeypatch, is_sweep, run_id):
    monkeypatch.setattr(session.system_metrics, "recorded", lambda store, run_id: run_id())
    ledger = SimpleNamespace(parent_run_id="parent", pending=lambda: [SimpleNamespace(run_id="run")])
    assert session._monitored(None, ledger, is_sweep) == run_id
