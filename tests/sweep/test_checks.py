"""Checks before anything starts."""

import mlflow
import pytest
from helpers.configs import LOGREG, MLP, job, run_config
from helpers.nets import CNN
from mlflow.exceptions import MlflowException, RestException

from lockstep.config.errors import Refused
from lockstep.sweep import checks
from lockstep.sweep.checks import check_runs, check_store


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            "get_experiment_by_name",
            RestException({"error_code": "PERMISSION_DENIED", "message": "not yours"}),
        ),
        ("create_experiment", RestException({"error_code": "PERMISSION_DENIED", "message": "not yours"})),
        ("create_experiment", MlflowException("not yours, for now")),
    ],
)
def test_an_experiment_that_the_store_refuses_is_refused(uri, monkeypatch, call, error):
    def refuse(*_args, **_options):
        raise error

    monkeypatch.setattr(mlflow.MlflowClient, call, refuse)
    with pytest.raises(Refused, match=r"tracking.experiment=digits: .*not yours"):
        check_store([job(uri).config])


def test_a_network_that_no_memory_holds_is_refused(monkeypatch):
    wide = MLP.model_copy(update={"hidden_dims": (10**6, 10**6), "hidden_dim1": 10**6, "hidden_dim2": 10**6})
    with pytest.raises(Refused) as caught:
        check_runs([run_config(wide, seed=seed) for seed in range(2)])
    [problem] = caught.value.problems
    assert problem.startswith(
        "model.hidden_dim1=1000000, model.hidden_dim2=1000000, model.hidden_dims=(1000000, 1000000): weights,"
        " gradients and optimizer state need 7,451.1 GiB; this machine has "
    )
    monkeypatch.setattr(checks, "physical_bytes", lambda: 2**20)
    check_runs([run_config(LOGREG), run_config(MLP)])  # 16 KiB


@pytest.mark.parametrize("lacks", [True, False])
def test_bfloat16_without_units_for_it_is_slower_and_the_log_says_so_once(monkeypatch, caplog, lacks):
    monkeypatch.setattr(checks, "lacks_bfloat16", lambda: lacks)
    check_runs([run_config(MLP, precision="bfloat16", seed=seed) for seed in range(2)])
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(";")[0] for text in said] == [
        "trainer.precision=bfloat16: this CPU has no bfloat16 units"
    ] * lacks


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"model": LOGREG, "threads": 2},
            "trainer.threads=2: for model=cnn and module; model=logreg shares idle cores by itself, with the"
            " bits of one thread",
        ),
        (
            {"model": CNN, "precision": "bfloat16"},
            "trainer.precision=bfloat16: model=cnn trains in float32 or float64",
        ),
    ],
)
def test_settings_that_a_network_cannot_have_are_refused(settings, problem):
    with pytest.raises(Refused) as caught:
        check_runs([run_config(**settings)])
    assert caught.value.problems == (problem,)


def test_a_module_that_no_memory_holds_is_refused(monkeypatch):
    monkeypatch.setattr(checks, "physical_bytes", lambda: 2**10)
    with pytest.raises(
        Refused, match=r"model.channels=\(3, 5\), model.hidden_dims=\(12,\): weights, gradients"
    ):
        check_runs([run_config(CNN)])
