"""MLflow's variables, as `run.py` takes them."""

import os
import sys

import pytest
from helpers.clone import REPOSITORY

from lockstep.cli import command, environment
from lockstep.config.compose import compose


@pytest.fixture
def composed(monkeypatch):
    """The config of a command's one run, with these variables."""

    def run(*overrides, **variables):
        monkeypatch.setenv("LOCKSTEP_ROOT", "/somewhere")
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_DISABLE_TELEMETRY"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["run.py", "--cfg", "job"])
        assert command.run(None, lambda: None, REPOSITORY / "conf") == 0
        [request] = compose(REPOSITORY / "conf", ["data=digits", *overrides]).requests
        return request.config.tracking

    return run


@pytest.mark.parametrize("unset", [{}, {"MLFLOW_TRACKING_URI": "", "MLFLOW_EXPERIMENT_NAME": ""}])
def test_a_variable_that_is_empty_is_not_set(composed, unset):
    tracking = composed(**unset)
    assert (tracking.uri, tracking.experiment) == ("sqlite:////somewhere/outputs/mlflow.db", "digits")
    assert not {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"} & os.environ.keys()


def test_mlflows_variables_are_the_defaults_and_what_is_typed_counts(composed):
    variables = {"MLFLOW_TRACKING_URI": "sqlite:///a b.db", "MLFLOW_EXPERIMENT_NAME": "2026, spring: ${x}"}
    tracking = composed(**variables)
    assert (tracking.uri, tracking.experiment) == tuple(variables.values())
    assert composed("tracking.experiment=typed", **variables).experiment == "typed"


@pytest.mark.parametrize(("given", "found"), [(None, "true"), ("", "true"), ("false", "false")])
def test_mlflows_telemetry_is_off_unless_it_is_asked_for(monkeypatch, given, found):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    if given is not None:
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", given)
    environment.settle()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == found
