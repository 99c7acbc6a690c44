"""The features that some training instance uses."""

import pytest
import torch
from helpers.configs import run_config

from lockstep.data.datasets import load
from lockstep.data.used_features import used_features


@pytest.mark.parametrize(
    ("used", "parts"),
    [
        ([1, 2, 4], ((1, 3), (4, 5))),
        ([0, 5], ((0, 1), (5, 6))),
        ([0, 1, 2, 3, 4, 5], ((0, 6),)),
        ([], ()),
    ],
)
def test_they_are_those_that_are_not_0_everywhere(used, parts):
    x_NxF = torch.zeros(3, 6)
    for number, feature in enumerate(used):
        x_NxF[number % 3, feature] = (-1) ** number  # also where all but one are 0, or none is positive
    found = used_features(x_NxF)
    assert found.used_U.tolist() == used
    assert sorted(found.used_U.tolist() + found.blank_V.tolist()) == list(range(6))
    assert found.parts == parts


def test_they_are_copied_in_order():
    x_NxF = load(run_config().data).x_train
    found = used_features(x_NxF)
    copied = torch.full((50, 64), torch.nan)
    found.copy(x_NxF[:50], out=copied[:, : len(found.used_U)])
    n_used = len(found.used_U)
    assert 55 < n_used < 64
    assert torch.equal(copied[:, :n_used], x_NxF[:50, found.used_U])
    assert copied[:, n_used:].isnan().all()
