"""Which choices mattered: importances and effects."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.records import recorded_sweep
from helpers.swept import GRID, sweep_of

from lockstep.report import choices
from lockstep.report.choices import last_scores, scores_of
from lockstep.tracking import sweeps
from lockstep.tracking.store import Store


def importances(sweep):
    return choices.importances(sweep, last_scores(sweep))


def effects(sweep):
    return choices.effects(sweep, last_scores(sweep))


def test_a_grid_of_two_keys_is_a_heatmap_of_means():
    chart = effects(sweep_of([*GRID, ("0.1", "32", 0.84)]))  # as of another seed
    [heatmap] = chart.figure.data
    assert heatmap.type == "heatmap"
    assert (list(heatmap.x), list(heatmap.y)) == (["0.01", "0.1"], ["32", "64"])
    np.testing.assert_allclose(np.array(heatmap.z, float), [[0.6, 0.82], [0.7, 0.9]])
    assert "width 32: lr 0.01 0.6000, lr 0.1 0.8200" in chart.text


def test_without_a_whole_grid_each_key_has_its_points():
    chart = effects(sweep_of(GRID[:3]))
    assert [trace.type for trace in chart.figure.data] == ["scatter", "scatter"]
    of_lr, of_width = chart.figure.data
    assert sorted(zip(of_lr.x, of_lr.y, strict=True)) == [(0.01, 0.6), (0.1, 0.8), (0.1, 0.9)]
    assert sorted(zip(of_width.x, of_width.y, strict=True)) == [(32, 0.6), (32, 0.8), (64, 0.9)]


def test_importance_goes_to_what_the_score_depends_on():
    generator = np.random.default_rng(0)
    points = [
        (repr(lr), str(width), 1 - abs(np.log10(lr) + 2) / 10)
        for lr, width in zip(10 ** generator.uniform(-3, 0, 60), generator.integers(10, 90, 60), strict=True)
    ]
    chart, shares = importances(sweep_of(points))
    assert shares["optim.lr"] > 0.7  # a forest's trees split by the other key at times
    assert sum(shares.values()) == pytest.approx(1)
    assert chart.figure.data[0].y[-1] == "lr"  # on top
    assert importances(sweep_of(points[:3])) == (None, {})


def test_categories_count_for_importances_too():
    points = [
        (act, str(width), 0.9 if act == "relu" else 0.5) for act in ("relu", "tanh") for width in range(5)
    ]
    _, shares = importances(sweep_of(points, swept=("model.activation", "model.width")))
    assert shares["model.activation"] > 0.7


def test_an_effect_is_drawn_on_the_scale_that_was_searched():
    sweep = replace(sweep_of(GRID[:3]), scales={"optim.lr": "log", "model.width": "linear"})
    figure = effects(sweep).figure
    assert (figure.layout.xaxis.type, figure.layout.xaxis2.type) == ("log", None)


def test_runs_of_a_search_are_compared_after_the_same_epoch(tmp_path, empty_store):
    """lr decides what a run has after an epoch; it is pruned or not by chance."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    lrs = [round(0.1 * k, 1) for k in range(1, 9)]
    pruned = [{} if k % 3 == 0 else {"lockstep.pruned_at": "1"} for k in range(8)]
    params = [{"optim.lr": str(lr), "trainer.epochs": "2"} for lr in lrs]
    runs = [(of_run, {}, tags, "FINISHED") for of_run, tags in zip(params, pruned, strict=True)]
    parent, ids = recorded_sweep(store, runs)
    for lr, run_id, tags in zip(lrs, ids, pruned, strict=True):
        store.client.log_metric(run_id, "val/accuracy", lr / 2, step=100)
        if not tags:
            store.client.log_metric(run_id, "val/accuracy", 0.99, step=200)
    sweep = sweeps.read(store, parent)
    scores = scores_of(store, sweep)
    assert scores.title == "val/accuracy after 1 epoch"
    assert scores.values == {run_id: lr / 2 for lr, run_id in zip(lrs, ids, strict=True)}
    chart = choices.effects(sweep, scores)
    assert sorted(chart.figure.data[0].y) == pytest.approx(sorted(lr / 2 for lr in lrs))
    assert "val/accuracy after 1 epoch of 8 runs" in chart.text
    importance, shares = choices.importances(sweep, scores)
    assert shares == {"optim.lr": pytest.approx(1)}
    assert "for val/accuracy after 1 epoch" in importance.text
    assert last_scores(sweep).values[ids[0]] == 0.99


def test_runs_that_stopped_early_are_compared_after_an_epoch_that_they_have(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    tags = [{"lockstep.pruned_at": "4"}, {"lockstep.stopped_at": "2", "lockstep.restored_epoch": "1"}]
    runs = [({"optim.lr": str(lr)}, {}, of_run, "FINISHED") for lr, of_run in zip((1, 2), tags, strict=True)]
    parent, (pruned, stopped) = recorded_sweep(store, runs)
    for epoch in range(1, 5):
        store.client.log_metric(pruned, "val/accuracy", epoch / 10, step=100 * epoch)
    for at, (accuracy, step) in enumerate(
        [(0.7, 100), (0.6, 200), (0.7, 200)], 1
    ):  # the last is the restored
        store.client.log_metric(stopped, "val/accuracy", accuracy, timestamp=at, step=step)
    scores = scores_of(store, sweeps.read(store, parent))
    assert (scores.title, scores.values) == ("val/accuracy after 2 epochs", {stopped: 0.6, pruned: 0.2})


def test_runs_pruned_amid_epochs_are_compared_at_the_rung_that_all_have_reached(tmp_path, empty_store):
    """An epoch has 79 iterations, so the rungs at 0.5 and 1.5 epochs are at 40 and 118 (39.5 and 118.5)."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    steps = [(40,), (40, 79, 118), (40, 79, 118, 158)]
    tags = [{"lockstep.pruned_at": "0.5"}, {"lockstep.pruned_at": "1.5"}, {}]
    params = [{"optim.lr": str(lr), "trainer.epochs": "2"} for lr in (1, 2, 3)]
    runs = [(of_run, {}, of_tags, "FINISHED") for of_run, of_tags in zip(params, tags, strict=True)]
    parent, ids = recorded_sweep(store, runs)
    for k, run_id in enumerate(ids):
        for step in steps[k]:
            store.client.log_metric(run_id, "val/accuracy", k + step / 1000, step=step)
    scores = scores_of(store, sweeps.read(store, parent))
    assert scores.title == "val/accuracy after 0.5 epochs"
    assert scores.values == {run_id: k + 0.04 for k, run_id in enumerate(ids)}
