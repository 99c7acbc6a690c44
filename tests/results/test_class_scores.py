"""Scores of all classes alike, against scikit-learn's."""

import warnings

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from lockstep.results.class_scores import class_scores

CLASSES = 4


@given(
    st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=30),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
@example([0], 1, 0)
@example([3, 3, 3], 2, 1)
def test_they_are_those_of_scikit_learn(labels, n_runs, seed):
    label_N = np.array(labels)
    prediction_KxN = np.random.default_rng(seed).integers(0, CLASSES, (n_runs, len(labels)))
    counts = [
        (np.bincount(of_run[of_run == label_N], minlength=CLASSES), np.bincount(of_run, minlength=CLASSES))
        for of_run in prediction_KxN
    ]
    found = class_scores(*map(np.array, zip(*counts, strict=True)), np.bincount(label_N, minlength=CLASSES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of predicted classes that no instance has
        expected = [
            (balanced_accuracy_score(label_N, of_run), f1_score(label_N, of_run, average="macro"))
            for of_run in prediction_KxN
        ]
    assert np.stack(found, axis=1).tolist() == [pytest.approx(of_run, rel=1e-14) for of_run in expected]
