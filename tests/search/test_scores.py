"""What trials are compared by."""

import numpy as np
import pytest
from helpers.configs import search
from hypothesis import given
from hypothesis import strategies as st

from lockstep.results.history import Evaluation
from lockstep.search.scores import predicted_loss, score


def validated(losses):
    return [
        Evaluation(iteration, "val", loss, 1 - loss / 10, 0.5, loss / 2) for iteration, loss in losses.items()
    ]


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_power_law_goes_on_as_it_is_or_with_a_share_of_its_slope(share):
    losses = {t: 3 * t**-0.4 for t in (100, 250, 300, 400)}
    expected = losses[400] * (4000 / 400) ** (-0.4 * share)
    assert predicted_loss(validated(losses), 4000, share) == pytest.approx(expected)


@given(st.lists(st.floats(1e-3, 10), min_size=2, max_size=8), st.floats(0, 1))
def test_the_line_is_numpys_over_the_last_three_quarters(losses, share):
    seen = {100 * (k + 1): loss for k, loss in enumerate(losses)}
    end = max(seen)
    late = [iteration for iteration in seen if iteration >= end / 4]
    slope, _ = np.polyfit(np.log(late), np.log([seen[iteration] for iteration in late]), 1)
    expected = seen[end] * (5000 / end) ** (share * slope)
    assert predicted_loss(validated(seen), 5000, share) == pytest.approx(expected)


def test_one_evaluation_has_no_slope_and_a_loss_of_zero_a_logarithm():
    assert predicted_loss(validated({100: 0.3}), 4000, 1.0) == pytest.approx(0.3)
    assert predicted_loss(validated({100: 0.3, 200: 0.0}), 4000, 0.0) == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, -0.4 / 2**0.5),
        ({"metric": "val/loss"}, 0.4 / 2**0.5),
        ({"extrapolate": None}, 0.96),
        ({"extrapolate": None, "metric": "val/loss"}, 0.4),
        ({"extrapolate": None, "metric": "val/f1_macro"}, 0.2),
    ],
)
def test_a_score_is_better_where_the_search_says_so(changes, expected):
    losses = validated({100: 0.8, 200: 0.4})  # halved where the iterations double; they will once more
    assert score(search(**changes), losses, 400) == pytest.approx(expected)
