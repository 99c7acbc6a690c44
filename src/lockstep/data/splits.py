"""Stratified splits: each part has every class in about the same share. N rows, C classes."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def stratified(labels_N: Array, n_part: int, seed: int) -> tuple[Array, Array]:
    """Return the rows that are left, and `n_part` rows drawn at random: int64, disjoint, ascending.

    A class of n rows gives n * n_part / N of them, rounded so that the sum is right: first down, then up
    where the remainders are largest (equal ones: at random). A class's last row is never drawn, so what is
    left has all classes; scikit-learn's train_test_split rejects classes of one row instead.

    Args:
        labels_N: each row's class, of any type that NumPy can sort.
        seed: 0 to 2**32 - 1; RandomState gives the same rows in every version of NumPy.

    Raises:
        ValueError: unless 0 <= n_part <= N - C.
    """
    classes_N = np.unique(labels_N, return_inverse=True)[1]
    counts_C = np.bincount(classes_N)
    n, most = len(classes_N), len(classes_N) - len(counts_C)
    if not 0 <= n_part <= most:
        raise ValueError(f"n_part={n_part}: allowed: 0 to {most}, rows less classes")
    random = np.random.RandomState(seed)
    order_N = random.permutation(n)
    drawn_C = counts_C * n_part // max(n, 1)
    by_remainder_C = np.lexsort((random.permutation(len(counts_C)), -(counts_C * n_part % max(n, 1))))
    while (missing := n_part - drawn_C.sum()) > 0:
        free_C = by_remainder_C[drawn_C[by_remainder_C] < counts_C[by_remainder_C] - 1]
        drawn_C[free_C[:missing]] += 1
    of_class_N = classes_N[order_N]
    is_drawn_N = np.zeros(n, bool)
    for label, n_drawn in enumerate(drawn_C):
        is_drawn_N[order_N[of_class_N == label][:n_drawn]] = True
    return np.flatnonzero(~is_drawn_N), np.flatnonzero(is_drawn_N)


def n_test(n: int, test_size: float) -> int:
    """Return how many of n rows a share is, rounded up as scikit-learn does."""
    return math.ceil(n * test_size)
