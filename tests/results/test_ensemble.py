"""Greedy ensemble selection, against all ensembles and hand-made cases."""

import numpy as np
import pytest

from lockstep.results.ensemble import LARGEST, average, select
from lockstep.results.predictions import Predictions


def network(probability_of_1, label_N):
    """Predictions of two classes."""
    probabilities_NxC = np.stack([1 - np.array(probability_of_1), probability_of_1], axis=1)
    return Predictions(
        np.array(label_N), probabilities_NxC.argmax(1), probabilities_NxC.astype(np.float32), ("a", "b")
    )


def test_networks_that_make_other_mistakes_are_put_together():
    label = [1, 1, 1, 0, 0, 0]
    best = network([0.9, 0.9, 0.3, 0.1, 0.1, 0.1], label)  # 5 of 6
    useless = network([0.6, 0.6, 0.1, 0.4, 0.4, 0.4], label)  # 5 of 6, with the same mistake
    helps = network([0.9, 0.4, 0.9, 0.6, 0.1, 0.1], label)  # 4 of 6
    counts = select([best, useless, helps])
    assert (counts[1], counts[2]) == (0, 1)
    assert average([best, helps], np.array([counts[0], 1]) / sum(counts)).accuracy == 1


def test_repetition_gives_a_network_more_weight():
    label = [1, 1, 0, 0]
    best = network([0.9, 0.45, 0.1, 0.1], label)  # 3 of 4
    helps = network([0.1, 0.9, 0.9, 0.1], label)  # half of it would outvote the best
    counts = select([best, helps])
    together = average([best, helps], np.array(counts) / sum(counts))
    assert (together.accuracy, counts[1]) == (1, 1)
    assert counts[0] > 1


def test_equal_accuracies_are_decided_by_the_log_loss_and_then_by_order():
    label = [1, 0]
    unsure, sure = network([0.6, 0.4], label), network([0.9, 0.1], label)
    assert select([unsure, sure]) == [0, 1]
    assert select([sure, sure]) == [1, 0]


def test_a_probability_of_zero_for_the_label_is_a_finite_loss():
    assert select([network([0.0, 0.0], [1, 0]), network([1.0, 1.0], [1, 0])]) != [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_on_the_instances_that_decide_it_is_never_worse_than_its_best_member(seed):
    rng = np.random.default_rng(seed)
    label_N = rng.integers(2, size=200)
    networks = [
        network(np.clip(label_N * 0.4 + 0.3 + rng.normal(0, 0.3, 200), 0, 1), label_N) for _ in range(12)
    ]
    counts = select(networks)
    assert 1 <= sum(counts) <= LARGEST
    together = average(networks, np.array(counts) / sum(counts))
    assert together.accuracy > max(member.accuracy for member in networks)
    assert np.allclose(together.probabilities_NxC.sum(axis=1), 1)
