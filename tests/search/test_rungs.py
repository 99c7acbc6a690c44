"""When trials are judged."""

import pytest
from helpers.configs import run_config, search
from hypothesis import given
from hypothesis import strategies as st

from lockstep.data.datasets import load
from lockstep.search.rungs import Rungs


@pytest.mark.parametrize(
    ("changes", "epochs", "per_epoch", "expected"),
    [
        ({}, 10, 781, [0.5, 1.5, 4.5]),  # from 5 % of the training on
        ({}, 40, 17, [2.941, 8.823, 26.469]),  # not before 50 iterations
        ({}, 10, 17, [2.941, 8.823]),
        ({}, 2, 17, []),  # a short training is not pruned
        ({"reduction_factor": 2}, 10, 781, [0.5, 1, 2, 4, 8]),
        ({"min_epochs": 1, "reduction_factor": 4}, 17, 781, [1, 4, 16]),
        ({"min_epochs": 1, "reduction_factor": 4}, 16, 17, [1, 4]),
        ({"min_epochs": 0.25}, 10, 17, [0.25, 0.75, 2.25, 6.75]),
        ({"min_epochs": 10}, 10, 781, []),
        ({"pruner": "hyperband"}, 10, 781, [0.5, 1.5, 4.5]),
        ({"pruner": "median", "min_epochs": 3}, 6, 781, [3, 4, 5]),
        ({"pruner": "median"}, 6, 17, [3, 4, 5]),
        ({"pruner": "none"}, 10, 781, []),
    ],
)
def test_rungs(changes, epochs, per_epoch, expected):
    rungs = Rungs.of(search(**changes), epochs, per_epoch)
    assert [rungs.epochs(rung) for rung in rungs.steps] == expected


def test_a_trial_pauses_after_the_nearest_iterations_and_never_at_its_end():
    data = load(run_config().data).description
    rungs = Rungs.of(search(min_epochs=0.5), 10, 17)
    for batch_size, epochs, expected in (
        (64, 10, {500: 11, 1500: 33, 4500: 99}),  # 22 iterations an epoch
        (64, 4, {500: 11, 1500: 33}),
        (128, 10, {500: 6, 1500: 16, 4500: 50}),  # 11: Python rounds 5.5 and 16.5 to even numbers
        (1437, 10, {500: 1, 1500: 2, 4500: 4}),
        (1437, 2, {500: 1}),
    ):
        config = run_config(epochs=epochs, batch_size=batch_size)
        assert rungs.iterations(config, data) == expected
    whole = Rungs.of(search(min_epochs=1, reduction_factor=4), 10, 22, unit=1)  # of an earlier version
    assert (whole.steps, whole.iterations(run_config(epochs=10), data)) == ((1, 4), {1: 22, 4: 88})


@given(st.floats(0.001, 3), st.integers(2, 6), st.integers(1, 20), st.sampled_from([1, 8, 64, 700, 1437]))
def test_rungs_are_distinct_iterations_before_the_end(min_epochs, factor, epochs, batch_size):
    config = run_config(epochs=epochs, batch_size=batch_size)
    rungs = Rungs.of(search(min_epochs=min_epochs, reduction_factor=factor), epochs, 1)
    found = rungs.iterations(config, load(config.data).description)
    assert list(found) == sorted(found)
    assert list(found.values()) == sorted(set(found.values()))
    assert all(0 < iterations < epochs * (1437 // batch_size) for iterations in found.values())
