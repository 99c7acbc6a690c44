"""Sweeps of a user's own networks, in one process."""

import shutil
from pathlib import Path

import mlflow
import pytest
import torch
from helpers.configs import LOGREG, job, with_pictures
from helpers.nets import NETS, module
from helpers.records import carried_out

from lockstep.cli.reproduce import reproduce
from lockstep.config.errors import Refused
from lockstep.config.launcher_config import LauncherConfig
from lockstep.data.datasets import load
from lockstep.sweep import drawing
from lockstep.tracking import logged_model
from lockstep.tracking.store import Store
from lockstep.training import network_code


@pytest.fixture(scope="module")
def stored(tmp_path_factory, empty_store):
    """A sweep of a convolutional, another and a logistic regression: its root, its runs by name."""
    root = tmp_path_factory.mktemp("swept")
    uri = f"sqlite:///{shutil.copy(empty_store, root / 'mlflow.db')}"
    models = {"cnn": module("ConvNet"), "odd": module("Odd"), "logreg": LOGREG}
    jobs = [job(uri, f"model={name}", model=model) for name, model in models.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCKSTEP_ROOT", str(root))
        results = carried_out(jobs, sweep=["model=cnn,odd,logreg"], launcher=LauncherConfig(n_jobs=1))
    client = mlflow.MlflowClient(uri)
    assert [result.status for result in results] == ["FINISHED"] * 3
    return root, {name: client.get_run(result.run_id) for name, result in zip(models, results, strict=True)}


@pytest.fixture
def swept(stored, monkeypatch):
    """Its store, and its runs by name."""
    root, runs = stored
    monkeypatch.setenv("LOCKSTEP_ROOT", str(root))
    return f"sqlite:///{root}/mlflow.db", runs


def artifacts_of(client, run, folder=""):
    for file in client.list_artifacts(run.info.run_id, folder):
        yield from artifacts_of(client, run, file.path) if file.is_dir else [file.path]


def test_what_is_recorded_of_them(swept, tmp_path):
    uri, runs = swept
    client = mlflow.MlflowClient(uri)
    cnn, odd = ({*artifacts_of(client, runs[name])} for name in ("cnn", "odd"))
    assert {path for path in cnn if path.startswith("pca/")} == {
        *("pca/input.png", "pca/conv2.png", "pca/fc.png", "pca/explained_variance.json"),
    }
    assert {path for path in odd if path.startswith("pca/")} == {
        "pca/explained_variance.json",
        *(f"pca/{layer}.png" for layer in ("input", "frozen", "tied", "again", "out")),
    }
    assert {"code/nets.py", "model/state_dict.pt", "predictions.parquet", "confusion.png"} <= cnn & odd
    assert {path for path in cnn | odd if "buffers" in path} == {"model/buffers.pt"}
    code = client.download_artifacts(runs["cnn"].info.run_id, "code/nets.py", str(tmp_path))
    assert Path(code).read_bytes() == NETS.read_bytes()
    assert runs["cnn"].data.params["model.channels"] == "4"
    assert "space/conv2/knn_accuracy" in runs["cnn"].data.metrics
    weights = torch.load(client.download_artifacts(runs["cnn"].info.run_id, "model/state_dict.pt"))
    network = network_code.of(module("ConvNet")).build({}, load(job(uri).config.data).description)
    network.load_state_dict(weights)  # by the user's own names


@pytest.mark.parametrize("name", ["cnn", "odd"])
def test_they_are_reproduced_from_a_file_that_is_named_and_has_the_same_content(
    swept, tmp_path, monkeypatch, name
):
    uri, runs = swept
    monkeypatch.setattr(network_code, "_known", {})  # as in another process
    store, run_id = Store(uri), runs[name].info.run_id
    with pytest.raises(Refused, match=r"its network is the user's own code, to be named: .* --code nets\.py"):
        reproduce(store, run_id)
    (tmp_path / "edited.py").write_bytes(NETS.read_bytes() + b"#")
    with pytest.raises(Refused, match=r"not what .* was trained with"):
        reproduce(store, run_id, code=str(tmp_path / "edited.py"))
    (tmp_path / "moved.py").write_bytes(NETS.read_bytes())
    found = reproduce(store, run_id, code=str(tmp_path / "moved.py"))
    assert (found.differences, found.missing) == ([], [])


def test_the_same_sweep_is_stored_and_its_model_gives_the_logits_of_any_rows(swept, monkeypatch):
    uri, _ = swept
    jobs = [job(uri, f"seed={seed}", model=module("ConvNet"), seed=seed) for seed in (0, 1)]
    results = carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert [result.is_stored for result in results] == [True, False]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    model = mlflow.pytorch.load_model(logged_model.log_model(Store(uri), results[0].run_id))
    assert model(torch.rand(7, 64)).shape == (7, 10)


def test_pictures_of_the_best_and_a_model_wait_for_a_command_that_names_the_code(uri, monkeypatch):
    jobs = [
        with_pictures(job(uri, f"seed={seed}", model=module("perceptron"), seed=seed), "best")
        for seed in (0, 1)
    ]
    store, run_id = (
        Store(uri),
        carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))[1].run_id,
    )
    monkeypatch.setattr(network_code, "_known", {})  # as in `deliver`
    with pytest.raises(network_code.NotNamed, match=r"nets\.py:perceptron is not run unless a command"):
        logged_model.log_model(store, run_id)
    with pytest.raises(network_code.NotNamed):
        drawing.draw_winner(store, run_id, "its name")
    network_code.read(f"{NETS}:perceptron")
    assert logged_model.log_model(store, run_id).startswith("models:/")
    drawing.draw_winner(store, run_id, "its name")
    assert "pca/4.png" in {file.path for file in store.client.list_artifacts(run_id, "pca")}


def test_a_network_that_cannot_be_exported_has_no_logged_model_and_a_warning(uri, caplog):
    [run] = carried_out([job(uri, model=module("Branches"))], sweep=None)
    store = Store(uri)
    assert run.status == "FINISHED"
    assert logged_model.log_model(store, run.run_id) is None
    assert "no logged model: the network can't be exported: " in caplog.text
    assert not store.client.get_run(run.run_id).outputs.model_outputs
    assert store.client.search_logged_models([store.experiment_id("digits")]) == []
