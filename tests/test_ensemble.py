"""A sweep's ensemble from Python, and as a logged model."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

import lockstep
from lockstep.data.minibatches import split

SETTINGS = ("data=digits", "data.val_size=300", "trainer.epochs=3", "tracking.pictures=best")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, empty_store):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ensemble")
        (folder / "outputs").mkdir()
        (folder / "outputs" / "mlflow.db").write_bytes(empty_store.read_bytes())
        patch.setenv("LOCKSTEP_ROOT", str(folder))
        (folder / "notebook").mkdir()
        patch.chdir(folder / "notebook")
        runs = ("model.hidden_dims=[16]", "optim.lr=0.1,0.2", "seed=0,1", "hydra.launcher.n_jobs=1")
        yield lockstep.sweep(*SETTINGS, *runs)


@pytest.fixture(scope="module")
def ensemble(sweep):
    return sweep.ensemble()


def test_it_predicts_with_the_accuracy_that_it_was_chosen_by(sweep, ensemble):
    assert len(ensemble.members) > 1
    assert set(ensemble.members) <= set(sweep.runs)
    assert sum(ensemble.weights) == pytest.approx(1)
    assert list(ensemble.weights) == sorted(ensemble.weights, reverse=True)
    assert ensemble.best.metrics["val/accuracy"] == max(run.metrics["val/accuracy"] for run in sweep.runs)
    assert ensemble.val_accuracy > ensemble.best.metrics["val/accuracy"]
    data = ensemble.best.dataset()
    _, val_N = split(len(data.x_train), 300)
    for x, y, accuracy in (
        (data.x_test, data.y_test, ensemble.accuracy),
        (data.x_train[val_N], data.y_train[val_N], ensemble.val_accuracy),
    ):
        assert (ensemble.predict(x) == y.numpy()).mean() == accuracy
    networks = zip(ensemble.members, ensemble.weights, strict=True)
    with torch.no_grad():
        expected = sum(w * run.network()(data.x_test).softmax(1) for run, w in networks)
    np.testing.assert_allclose(ensemble.predict_proba(data.x_test.numpy()), expected, atol=1e-6)
    assert f"test/accuracy {ensemble.accuracy:.4f}" in repr(ensemble)
    assert all(run.name in repr(ensemble) for run in ensemble.members)


def test_it_is_a_logged_model_of_the_sweep_that_needs_no_lockstep(sweep, ensemble, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sweep._store.uri)  # set_tracking_uri sets it for good
    uri = ensemble.log_model()
    assert sweep.ensemble().log_model() == uri
    client = mlflow.MlflowClient(sweep._store.uri)
    [output] = client.get_run(sweep.id).outputs.model_outputs
    assert uri == f"models:/{output.model_id}"
    mlflow.set_tracking_uri(sweep._store.uri)
    data = ensemble.best.dataset()
    model = mlflow.pyfunc.load_model(uri)
    assert np.array_equal(model.input_example, data.x_test[:5])
    assert model.metadata.metadata["class_names"] == list(data.description.class_names)
    assert "probabilities of 0, 1" in str(model.metadata.signature.outputs)
    predicted = model.predict(data.x_test.numpy())
    np.testing.assert_allclose(predicted, ensemble.predict_proba(data.x_test), atol=1e-6)
    assert list(Path().iterdir()) == []  # MLflow has made no store of its own


def test_without_a_validation_split_none_is_offered(sweep):
    settings = (*SETTINGS[:1], "trainer.epochs=1", "model=logreg", "tracking.pictures=none")
    with pytest.raises(lockstep.Refused, match=r"data\.val_size"):
        lockstep.sweep(*settings, "hydra.launcher.n_jobs=1").ensemble()
