"""How MLflow's UI shows a sweep. The UI itself: tests/report/test_browser.py."""

import json
import shutil

import pytest
from helpers.records import recorded_sweep

from lockstep.results.winner import Ranking
from lockstep.tracking import links, sweeps, ui
from lockstep.tracking._mlflow_compat import view_state
from lockstep.tracking.store import Store


@pytest.fixture
def store(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Store(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_sweep_gets_a_view_of_its_runs_and_they_get_colours(store):
    by_loss = {"lockstep.ranking": Ranking("val/loss", maximize=False).to_json()}
    runs = [
        (
            {"optim.lr": str(lr)},
            {"val/loss": loss, "train/loss": 1.0, "time/train_seconds": 1.0},
            {},
            "FINISHED",
        )
        for lr, loss in ((0.1, 0.5), (0.2, 0.3), (0.3, 0.4))
    ]
    parent, ids = recorded_sweep(store, runs, by_loss)
    before = sweeps.read(store, parent)
    assert before.view == "" and "searchFilter" in before.link(store)
    described = ui.describe(store, before, "three runs")
    after = sweeps.read(store, parent)
    assert after.link(store) == described.link(store)  # the report's first link, and that of a rebuilt one
    assert after.link(store).endswith(f"/runs?workflowType=machine_learning&viewStateShareKey={parent[:8]}")
    [experiment] = after.experiment_ids
    view = json.loads(store.client.get_experiment(experiment).tags[f"mlflow.sharedViewState.{parent[:8]}"])
    found = [run.info.run_id for run in store.search([experiment], view["searchFilter"])]
    assert sorted(found) == sorted(ids)
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`val/loss`", True)
    assert view["selectedColumns"] == ["metrics.`val/loss`", "params.`optim.lr`"]
    sections = [(section["name"], section["display"]) for section in view["compareRunSections"]]
    assert sections == [("val", True), ("train", True), ("time", False)]  # curves first
    colors = [store.client.get_run(run_id).data.tags["mlflow.runColor"] for run_id in ids]
    assert colors == [after.colors[run_id] for run_id in ids]
    assert len(set(colors)) == 3


def test_a_view_that_no_store_would_take_is_none(store):
    assert view_state("x" * 5000, "val/loss", False, [], []) == ""
    parent, _ = recorded_sweep(store, [({"a": "1"}, {"test/accuracy": 1.0}, {}, "FINISHED")])
    sweep = sweeps.read(store, parent)
    ui.describe(store, sweep, "")
    store.client.set_experiment_tag(sweep.experiment_ids[0], f"mlflow.sharedViewState.{parent[:8]}", "")
    experiment = store.client.get_experiment(sweep.experiment_ids[0])
    assert links.view_of(experiment.tags, parent) == ""
