import json
import os

import mlflow
import numpy as np
import pytest
import torch
from helpers import forked
from helpers.clone import Clone
from helpers.configs import run_config
from mlflow.entities import LoggedModelStatus

from lockstep.data import datasets
from lockstep.tracking.logged_model import log_model
from lockstep.tracking.store import Store

COMMON = ("-m", "data=digits", "tracking.pictures=none", "hydra.launcher.n_jobs=1")
SWEEP = (*COMMON, "trainer.epochs=2", "model.hidden_dim1=16", "optim.lr=0.1,0.001")


@pytest.fixture(scope="module")
def swept(tmp_path_factory, empty_store):
    clone = Clone(tmp_path_factory.mktemp("clone"), empty_store)
    code, out, err = clone.quick(*SWEEP)
    assert (code, err) == (0, "")
    return clone, out


def best_run(clone):
    client = mlflow.MlflowClient(clone.store)
    experiment = client.get_experiment_by_name("digits").experiment_id
    runs = client.search_runs([experiment], "tags.`lockstep.kind` = 'run'")
    return max(runs, key=lambda run: run.data.metrics["test/accuracy"])


def address(out):
    [line] = [line for line in out.splitlines() if line.startswith("The best run's model: ")]
    return line.removeprefix("The best run's model: ")


def test_mlflow_predicts_with_the_best_runs_model_as_the_run_did(swept, tmp_path):
    clone, out = swept
    run, digits = best_run(clone), datasets.load(run_config().data)
    asked, answered = tmp_path / "asked.json", tmp_path / "answered.json"
    asked.write_text(json.dumps({"inputs": digits.x_test.tolist()}))
    command = ["-m", "mlflow", "models", "predict", "--env-manager", "local", "-m", address(out)]
    command += ["-i", str(asked), "-t", "json", "-o", str(answered)]
    done = forked.run(command, tmp_path, {**os.environ, "MLFLOW_TRACKING_URI": clone.store})
    assert done.returncode == 0, done.stderr
    logits = np.array(json.loads(answered.read_text())["predictions"])
    accuracy = (logits.argmax(1) == digits.y_test.numpy()).mean()
    assert accuracy == pytest.approx(run.data.metrics["test/accuracy"], abs=1e-12)


def test_the_model_is_the_runs_by_signature_example_and_weights(swept):
    clone, out = swept
    run, digits = best_run(clone), datasets.load(run_config().data)
    mlflow.set_tracking_uri(clone.store)
    described = mlflow.models.get_model_info(address(out))
    assert described.signature.inputs.inputs[0].shape == (-1, 64)
    assert described.signature.outputs.inputs[0].shape == (-1, 10)
    assert described.run_id == run.info.run_id
    example = mlflow.pyfunc.load_model(address(out)).input_example
    assert np.array_equal(example, digits.x_test[:5])
    weights = torch.load(
        mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="model/state_dict.pt"),
        weights_only=True,
    )
    for uri in (address(out), f"runs:/{run.info.run_id}/model"):
        model = mlflow.pytorch.load_model(uri)
        kept = dict(model.named_parameters())
        assert weights.keys() == kept.keys()
        assert all(torch.equal(weights[name], kept[name]) for name in weights)
        assert torch.equal(model(digits.x_test[:1]), model(digits.x_test[:1]))  # no dropout


def test_a_sweep_whose_best_run_has_a_model_logs_no_second_one(swept):
    clone, out = swept
    code, again, err = clone.quick(*SWEEP[:-1], "optim.lr=0.1,0.0001")
    assert (code, err) == (0, "")
    assert address(again) == address(out)
    client = mlflow.MlflowClient(clone.store)
    experiment = client.get_experiment_by_name("digits").experiment_id
    assert len(client.search_logged_models([experiment])) == 1


def test_a_model_that_two_machines_make_at_the_same_moment_is_one(swept, monkeypatch):
    clone, _ = swept
    store, best = Store(clone.store), best_run(clone)
    search, experiment = store.client.search_logged_models, best.info.experiment_id
    runs = store.client.search_runs([experiment], "tags.`lockstep.kind` = 'run'")
    run = next(run for run in runs if run.info.run_id != best.info.run_id)
    made = []

    def before_another_machine_makes_one(*arguments):
        found = search(*arguments)
        if not made:
            made.append(store.client.create_logged_model(experiment, "model", run.info.run_id).model_id)
        return found

    monkeypatch.setattr(store.client, "search_logged_models", before_another_machine_makes_one)
    assert log_model(store, run.info.run_id) == f"models:/{made[0]}"
    assert [model.model_id for model in search([experiment], f"source_run_id = '{run.info.run_id}'")] == made


def test_a_model_that_a_kill_left_half_logged_is_made_whole(clone, monkeypatch):
    assert clone.quick("data=digits", "model=logreg", "trainer.epochs=1", "tracking.pictures=none")[0] == 0
    client, run = mlflow.MlflowClient(clone.store), best_run(clone)
    begun = client.create_logged_model(run.info.experiment_id, "model", run.info.run_id)
    store = Store(clone.store)
    log_outputs = store.client.log_outputs

    def also_by_another_command(*arguments):  # one with the same sweep
        log_outputs(*arguments)
        log_outputs(*arguments)

    monkeypatch.setattr(store.client, "log_outputs", also_by_another_command)
    for _ in range(2):
        assert log_model(store, run.info.run_id) == f"models:/{begun.model_id}"
    [model] = client.search_logged_models([run.info.experiment_id])
    assert (model.model_id, model.status) == (begun.model_id, LoggedModelStatus.READY)
    mlflow.set_tracking_uri(clone.store)
    digits = datasets.load(run_config().data)
    network = mlflow.pytorch.load_model(f"models:/{begun.model_id}")
    accuracy = (network(digits.x_test).argmax(1) == digits.y_test).double().mean().item()
    assert accuracy == pytest.approx(run.data.metrics["test/accuracy"], abs=1e-12)


def test_the_model_of_a_float64_logistic_regression_keeps_its_dtype(clone):
    code, out, err = clone.quick(*COMMON, "model=logreg", "trainer.epochs=1", "trainer.precision=float64")
    assert (code, err) == (0, "")
    mlflow.set_tracking_uri(clone.store)
    model = mlflow.pyfunc.load_model(address(out))
    digits = datasets.load(run_config().data)
    logits = model.predict(digits.x_test.double().numpy())
    assert logits.dtype == np.float64
    accuracy = (logits.argmax(1) == digits.y_test.numpy()).mean()
    assert accuracy == pytest.approx(best_run(clone).data.metrics["test/accuracy"], abs=1e-12)
