"""Scores that count every class alike, however rare it is. Suffixes: K runs, C classes."""

from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.integer[Any]]
Scores = npt.NDArray[np.float64]


def class_scores(n_right_KxC: Counts, n_predicted_KxC: Counts, n_C: Counts) -> tuple[Scores, Scores]:
    """Return balanced accuracies and macro-averaged F1 scores, K each, as scikit-learn computes them.

    The first is the mean recall of the classes that instances have. The second is the mean of 2 * right /
    (instances + predictions) of the classes that instances or predictions have.

    Args:
        n_right_KxC, n_predicted_KxC: right predictions, and all predictions, of each class.
        n_C: instances of each class.
    """
    # A class that no instance, or no prediction either, has adds 0.
    recall_KxC = n_right_KxC / np.maximum(n_C, 1)
    total_KxC = n_C + n_predicted_KxC
    f1_KxC = 2 * n_right_KxC / np.maximum(total_KxC, 1)
    return recall_KxC.sum(axis=1) / np.count_nonzero(n_C), f1_KxC.sum(axis=1) / (total_KxC > 0).sum(axis=1)
