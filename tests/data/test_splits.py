"""Stratified splits, compared with scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from lockstep.data.splits import n_test, stratified


@given(st.lists(st.integers(4, 60), min_size=2, max_size=6), st.data(), st.integers(0, 2**32 - 1))
def test_each_class_gives_its_share_as_in_scikit_learn(counts, data, seed):
    labels = np.random.RandomState(seed).permutation(np.repeat(list("abcdef")[: len(counts)], counts))
    n_part = data.draw(st.integers(len(counts), len(labels) // 2))
    left, part = stratified(labels, n_part, seed)
    assert len(part) == n_part
    assert sorted([*left, *part]) == list(range(len(labels)))
    assert (np.diff(left) > 0).all() and (np.diff(part) > 0).all()
    [(_, theirs)] = StratifiedShuffleSplit(1, test_size=n_part, random_state=0).split(labels, labels)
    drawn = [sorted(np.unique(labels[rows], return_counts=True)[1]) for rows in (part, theirs)]
    exact = np.array(counts) * n_part / len(labels)
    if len(set(np.round(exact % 1, 9))) == len(counts):  # equal remainders are rounded at random
        assert drawn[0] == drawn[1]


def test_a_split_depends_on_its_seed_only():
    labels = np.arange(200) % 3
    assert stratified(labels, 50, 1)[1].tolist() == stratified(labels, 50, 1)[1].tolist()
    assert stratified(labels, 50, 1)[1].tolist() != stratified(labels, 50, 2)[1].tolist()
    # As drawn on 2026-11-28: other rows would make other data of every stored run.
    assert stratified(np.arange(20) % 2, 4, 0)[1].tolist() == [1, 8, 18, 19]


def test_a_class_of_one_row_is_left():
    labels = np.array([0] * 9 + [1] + [2] * 2)
    for seed in range(20):
        left, part = stratified(labels, 9, seed)
        assert set(labels[left]) == {0, 1, 2} and len(part) == 9
    for n_part in (-1, 10):
        with pytest.raises(ValueError, match="allowed: 0 to 9"):
            stratified(labels, n_part, 0)


def test_a_share_is_rounded_up():
    assert [n_test(n, 0.2) for n in (5, 6, 344)] == [1, 2, 69]
