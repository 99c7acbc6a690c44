"""Checks before anything starts."""

import mlflow
import pytest
from helpers.configs import job
from mlflow.exceptions import MlflowException, RestException

from lockstep.config.errors import Refused
from lockstep.sweep.checks import check_store


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
