"""Checks before anything trains."""

import pytest
from helpers.configs import job

from lockstep.config.errors import Refused
from lockstep.sweep.checks import check_runs


def test_check_lists_every_problem_and_leaves_the_store_alone(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    jobs = [job(uri, batch_size=5000), job(uri, val_size=1437), job("sqlite:///elsewhere.db")]
    with pytest.raises(Refused) as caught:
        check_runs([job.config for job in jobs])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "data.batch_size=5000",
        "data.val_size=1437",
        "tracking.uri",
    ]
    assert list(tmp_path.iterdir()) == []
