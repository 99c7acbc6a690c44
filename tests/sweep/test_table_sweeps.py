"""Sweeps over the user's own table: its copies are found again; its folds are repeats."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from helpers.configs import LOGREG, job, with_pictures
from helpers.records import carried_out, statuses
from helpers.tables import birds, write

from lockstep.config.data_config import TableConfig
from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.run_request import RunRequest
from lockstep.data.datasets import load
from lockstep.data.splits import stratified
from lockstep.results.winner import Ranking, ranked
from lockstep.sweep import planning
from lockstep.sweep.ledger import Ledger
from lockstep.terminal.console import console
from lockstep.tracking.logged_model import log_model
from lockstep.tracking.store import Store

STREAM = {"batch_size": 8, "drop_last": True, "val_size": 0, "shuffle_seed": 0}


@pytest.fixture
def requests(uri):
    def of(path, *changes, epochs=2):
        jobs = []
        for change in changes:
            data = TableConfig(name="table", path=str(path), target="species", **{**STREAM, **change})
            plain = with_pictures(job(uri, f"{change}", model=LOGREG, epochs=epochs), "none")
            jobs.append(RunRequest(plain.config.model_copy(update={"data": data}), plain.overrides))
        return jobs

    return of


def test_a_copy_in_another_format_is_the_same_run(requests, tmp_path, uri):
    table = birds().assign(mass=birds().mass.where(birds().mass > 3500))
    settings = ({"missing": "impute"}, {"missing": "impute", "val_size": 8})
    runs = carried_out(
        requests(write(tmp_path / "t.csv", table), *settings),
        [],
        launcher=LauncherConfig(n_jobs=1),
        folder=tmp_path / "a",
    )
    assert statuses(runs) == [("FINISHED", False)] * 2
    copy = write(tmp_path / "t.parquet", table)
    again = carried_out(
        requests(copy, *settings), [], launcher=LauncherConfig(n_jobs=1), folder=tmp_path / "b"
    )
    assert statuses(again) == [("FINISHED", True)] * 2
    assert [run.run_id for run in again] == [run.run_id for run in runs]
    stored = mlflow.MlflowClient(uri).get_run(runs[1].run_id)
    assert stored.data.params["data.target"] == "species" and stored.data.params["data.split_seed"] == "0"
    assert (
        '"class_names": ["Adelie", "Chinstrap", "Gentoo"]' in stored.inputs.dataset_inputs[0].dataset.profile
    )


def test_the_logged_model_takes_the_rows_of_the_file(requests, tmp_path, uri):
    table = birds().assign(mass=birds().mass.where(birds().mass > 3500))
    path = write(tmp_path / "t.csv", table)
    request = requests(path, {"missing": "impute"})
    [run] = carried_out(request, [], launcher=LauncherConfig(n_jobs=1), folder=tmp_path / "sweep")
    address = log_model(Store(uri), run.run_id)
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(address)
    rows = pd.read_csv(path)
    found = model.predict(rows.drop(columns="species"))
    _, test_N = stratified(rows.species, 12, 0)
    accuracy = (found.species == rows.species)[test_N].mean()
    assert accuracy == pytest.approx(run.metrics["test/accuracy"])
    assert model.metadata.signature.inputs.input_names() == ["mass", "island", "flipper", "is_banded"]
    assert model.metadata.metadata["class_names"] == ["Adelie", "Chinstrap", "Gentoo"]
    assert model.input_example.shape == (5, 4)
    examples = model.predict(model.input_example)
    assert examples.to_dict("list") == found.loc[test_N[:5]].to_dict("list")
    network, dataset = mlflow.pytorch.load_model(address), load(request[0].config.data)
    assert found.species[test_N].tolist() == [
        dataset.description.class_names[label] for label in network(dataset.x_test).argmax(1)
    ]


def test_folds_are_repeats(requests, tmp_path):
    path = write(tmp_path / "t.csv", birds())
    folds = [{"fold": fold, "folds": 3, "val_size": 6} for fold in range(3)]
    runs = carried_out(
        requests(path, *folds), [], launcher=LauncherConfig(n_jobs=1), folder=tmp_path / "sweep"
    )
    assert len({run.run_key for run in runs}) == len({run.data_digest for run in runs}) == 3
    [row] = ranked(runs, Ranking.of(runs))
    accuracies = [run.metrics["val/accuracy"] for run in runs]
    assert (len(row.runs), row.mean("val/accuracy")) == (3, pytest.approx(np.mean(accuracies)))


def test_a_fold_has_the_bits_that_it_has_alone_also_once_resumed(requests, tmp_path, uri, monkeypatch):
    path = write(tmp_path / "t.csv", birds())
    folds = [{"fold": fold, "folds": 3, "val_size": 6} for fold in range(3)]
    asked = requests(path, *folds, epochs=6)
    receive = Ledger.receive

    def once(ledger, number, event):
        receive(ledger, number, event)
        if ledger._entries[1].history.epochs == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(Ledger, "receive", once)
        carried_out(asked, ["..."], launcher=LauncherConfig(n_jobs=1))
    swept = carried_out(asked, ["..."], launcher=LauncherConfig(n_jobs=1))
    for run, request in zip(swept, asked, strict=True):
        [alone] = carried_out([request], None, launcher=LauncherConfig(n_jobs=1))
        for metric in ("val/loss", "val/accuracy", "test/loss", "test/f1_macro"):
            assert run.metrics[metric] == alone.metrics[metric]


def test_the_report_shows_which_columns_matter(requests, tmp_path, uri):
    path = write(tmp_path / "t.csv", birds())
    asked = [with_pictures(request, "best") for request in requests(path, {}, {"batch_size": 16}, epochs=20)]
    runs = carried_out(asked, ["..."], launcher=LauncherConfig(n_jobs=1), folder=tmp_path / "sweep")
    best = max(runs, key=lambda run: run.metrics["test/accuracy"])
    artifacts = mlflow.artifacts.download_artifacts(
        run_id=best.run_id, artifact_path="columns/importance.json", tracking_uri=uri
    )
    found = json.loads(Path(artifacts).read_text())
    assert sorted(found) == ["flipper", "is_banded", "island", "mass"]
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "Which columns matter to the best run" in page
    first, (mean, _) = next(iter(found.items()))
    assert f"test instances: {first} {mean:.4f}, " in page


def test_a_dry_run_shows_the_columns_of_each_table_once(requests, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "width", 100)
    path = write(tmp_path / "t.csv", birds())
    runs = requests(path, {"drop": ("flipper",)}, {"drop": ("flipper",), "batch_size": 4})
    load(runs[0].config.data)  # says what it has found, once
    with console.capture() as captured:
        planning._show_columns([run.config for run in runs])
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert lines[0] == "column     features  becomes"
    assert lines[1].startswith("mass              1  (number - 4")
    assert lines[2:] == [
        "island            3  one-hot: Biscoe, Dream, Torgersen",
        "is_banded         2  one-hot: false, true",
        "flipper           0  left out: data.drop",
        "species              target, 3 classes: Adelie, Chinstrap, Gentoo",
        "",
    ]


def test_an_index_that_pandas_saved_is_dropped_and_the_model_takes_the_rows(
    requests, tmp_path, uri, monkeypatch
):
    monkeypatch.setattr(console, "width", 100)
    path = tmp_path / "t.csv"
    birds(90).sample(60, random_state=0).to_csv(path)
    request = requests(path, {"drop": ("",)})
    with console.capture() as captured:
        planning._show_columns([request[0].config])
    assert '""                0  left out: data.drop' in captured.get()
    [run] = carried_out(request, [], launcher=LauncherConfig(n_jobs=1), folder=tmp_path / "sweep")
    mlflow.set_tracking_uri(uri)
    model = mlflow.pyfunc.load_model(log_model(Store(uri), run.run_id))
    rows = pd.read_csv(path)
    test_N = stratified(rows.species, 12, 0)[1]
    accuracy = (model.predict(rows).species == rows.species)[test_N].mean()
    assert accuracy == pytest.approx(run.metrics["test/accuracy"])
