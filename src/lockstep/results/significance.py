"""Whether a difference is more than chance: between two networks on one test set, and between settings.

SciPy is imported where it is used: `scipy.stats` takes 0.8 s to load.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.05
"""A difference with a corrected p-value below this is called real."""

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Difference:
    """A network against the best one, on the same instances.

    Attributes:
        n_only_it, n_only_best: instances that only one of them predicts right.
        p_value: that a difference like this one is chance, corrected over all comparisons.
    """

    n_only_it: int
    n_only_best: int
    p_value: float

    @property
    def is_real(self) -> bool:
        """Whether it is more than chance."""
        return self.p_value < LEVEL


def interval(is_right_N: BoolArray) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy (Wilson, 1927)."""
    from scipy.stats import binomtest

    found = binomtest(int(is_right_N.sum()), len(is_right_N)).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def compare_networks(best_N: BoolArray, others: Sequence[BoolArray]) -> list[Difference]:
    """Compare networks with the best one by McNemar's test, exact and two-sided.

    It asks how often a fair coin falls so unevenly, thrown once for each instance that only one of the two
    predicts right. Instances that both predict right, or both wrong, say nothing about a difference.

    Args:
        best_N, others: whether each prediction is right, on the same instances.
    """
    from scipy.stats import binomtest

    counts = [(int((other_N & ~best_N).sum()), int((best_N & ~other_N).sum())) for other_N in others]
    p_values = [binomtest(it, it + best).pvalue if it + best else 1.0 for it, best in counts]
    return [Difference(*pair, p_value) for pair, p_value in zip(counts, _corrected(p_values), strict=True)]


def compare_settings(best: Sequence[float], others: Sequence[Sequence[float]]) -> list[float | None]:
    """Return corrected p-values of the differences between settings' means over repeats.

    Welch's t-test: it needs neither equal spreads nor equally many repeats. Repeats with the same seed are
    not paired. What they share, such as the order of minibatches, makes the test at most too careful.

    Args:
        best, others: a figure of each repeat of a setting.

    Returns:
        None for a setting that can't be compared: it, or the best one, has one repeat, or neither varies.
    """
    from scipy.stats import ttest_ind

    values = [_variable(best, other) for other in others]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a setting whose repeats are all equal
        p_values = [ttest_ind(best, other, equal_var=False).pvalue for other in values if other is not None]
    corrected = iter(_corrected(p_values))
    return [None if other is None else next(corrected) for other in values]


def _variable(best: Sequence[float], other: Sequence[float]) -> Sequence[float] | None:
    is_comparable = min(len(best), len(other)) > 1 and (len({*best}) > 1 or len({*other}) > 1)
    return other if is_comparable else None


def _corrected(p_values: Sequence[Any]) -> list[float]:
    """Return p-values that control the false discovery rate (Benjamini and Hochberg, 1995)."""
    from scipy.stats import false_discovery_control

    return [float(value) for value in false_discovery_control(p_values)] if p_values else []
