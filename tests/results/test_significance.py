"""Tests of significance, against values from tables and exact arithmetic."""

from fractions import Fraction
from math import comb, gamma, pi

import numpy as np
import pytest

from lockstep.results.significance import compare_networks, compare_settings, interval


def right(n_both, n_first, n_second, n_neither):
    """Whether two networks' predictions are right, of instances that both, one, or neither predict right."""
    counts = (n_both, n_first, n_second, n_neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def exact(n_first, n_second):
    """McNemar's exact p-value: of n throws of a coin, as far or farther from n / 2, to either side."""
    n, far = n_first + n_second, abs(n_first - n_second)
    tail = sum(comb(n, heads) for heads in range(n + 1) if abs(2 * heads - n) >= far)
    return float(Fraction(tail, 2**n))


@pytest.mark.parametrize(
    ("n_first", "n_second"), [(0, 0), (1, 0), (0, 5), (6, 6), (12, 3), (25, 11), (121, 59)]
)
def test_two_networks_are_compared_by_mcnemars_exact_test(n_first, n_second):
    best_N, other_N = right(900, n_first, n_second, 40)
    [found] = compare_networks(best_N, [other_N])
    assert (found.n_only_best, found.n_only_it) == (n_first, n_second)
    assert found.p_value == pytest.approx(exact(n_first, n_second), rel=1e-12)
    assert found.is_real == (exact(n_first, n_second) < 0.05)


def test_several_p_values_are_corrected_by_benjamini_and_hochberg():
    best_N = np.ones(100, bool)
    others = [np.arange(100) >= n_wrong for n_wrong in (0, 5, 6, 7, 12)]  # p: 1, 2/2^5, 2/2^6, 2/2^7, 2/2^12
    found = [difference.p_value for difference in compare_networks(best_N, others)]
    # The i-th least of m is multiplied by m / i, then none may exceed a greater one.
    assert found == pytest.approx([1, 5 / 4 / 2**4, 5 / 3 / 2**5, 5 / 2 / 2**6, 5 / 2**11])
    assert compare_networks(best_N, []) == []


def test_networks_of_equal_error_rates_seldom_differ():
    """The false-positive rate is at most 5 %: 500 pairs that have a third of their mistakes in common."""
    rng = np.random.default_rng(0)
    hard_TxN = rng.random((500, 1000)) < 0.01
    first, second = ((rng.random((500, 1000)) < 0.02) | hard_TxN for _ in range(2))
    differ = [compare_networks(~a, [~b])[0].is_real for a, b in zip(first, second, strict=True)]
    assert 0 < np.mean(differ) <= 0.05


def test_the_interval_is_wilsons():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    is_right_N = np.arange(263) < 81
    assert interval(is_right_N) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(np.zeros(20, bool)) == pytest.approx((0, 0.1611), abs=5e-5)
    assert interval(np.arange(29) < 1) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def welch(first, second):
    """The p-value by the formulas of Welch, 1947; the t-distribution's density is integrated numerically."""
    variances = [np.var(values, ddof=1) / len(values) for values in (first, second)]
    t = abs(np.mean(first) - np.mean(second)) / sum(variances) ** 0.5
    parts = [variance**2 / (len(v) - 1) for variance, v in zip(variances, (first, second), strict=True)]
    df = sum(variances) ** 2 / sum(parts)
    x = np.linspace(0, t, 100_001)
    scale = gamma((df + 1) / 2) / (gamma(df / 2) * (df * pi) ** 0.5)
    density = scale * (1 + x**2 / df) ** (-(df + 1) / 2)
    return 1 - 2 * (density.mean() - (density[0] + density[-1]) / 2 / len(x)) * len(x) / (len(x) - 1) * t


def test_settings_are_compared_by_welchs_test_where_they_have_repeats():
    best, other = [0.981, 0.983, 0.982], [0.975, 0.981, 0.960, 0.978]
    [p_value] = compare_settings(best, [other])
    assert p_value == pytest.approx(welch(best, other), rel=1e-6)
    one, same = [2.0], [2.0, 2.0]
    assert compare_settings(best, [one, other, other]) == [None, *[pytest.approx(p_value)] * 2]
    assert compare_settings(same, [same]) == [None]
    assert compare_settings([1.0, 3.0], [same]) == [pytest.approx(1)]  # without a warning of constant repeats
    assert compare_settings(one, [best]) == [None]
