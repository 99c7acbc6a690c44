"""Greedy ensemble selection: which networks to average, and how often each counts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lockstep.results.predictions import IntArray, Predictions

CANDIDATES, LARGEST = 12, 10
"""The networks to choose from, and the most that are chosen, counting repetitions."""


def select(candidates: Sequence[Predictions]) -> list[int]:
    """Return how often each network counts in the average of probabilities with the highest accuracy.

    Start empty; add the network, also one that is in already, whose addition gives the highest accuracy; keep
    the best of the LARGEST ensembles on this way (Caruana et al., "Ensemble Selection from Libraries of
    Models", ICML 2004). Equal accuracies are decided by the log-loss, then by the order of the candidates and
    the smaller ensemble.

    Args:
        candidates: predictions on the instances that decide, the same for all.
    """
    label_N = candidates[0].label_N
    total_NxC = np.zeros(candidates[0].probabilities_NxC.shape)
    added: list[int] = []
    scores: list[tuple[int, float]] = []
    for size in range(1, LARGEST + 1):
        of_each = [_score(total_NxC + candidate.probabilities_NxC, size, label_N) for candidate in candidates]
        scores.append(max(of_each))
        added.append(of_each.index(scores[-1]))
        total_NxC += candidates[added[-1]].probabilities_NxC
    chosen = added[: scores.index(max(scores)) + 1]
    return [chosen.count(place) for place in range(len(candidates))]


def _score(total_NxC: npt.NDArray[np.float64], size: int, label_N: IntArray) -> tuple[int, float]:
    """Return the number of right predictions, and minus the log-loss."""
    of_label_N = np.take_along_axis(total_NxC, label_N[:, None].astype(np.int64), axis=1) / size
    log_loss = -np.log(np.maximum(of_label_N, np.finfo(np.float32).tiny)).mean()
    return int((total_NxC.argmax(axis=1) == label_N).sum()), -float(log_loss)


def average(members: Sequence[Predictions], weights: Sequence[float]) -> Predictions:
    """Return the predictions of networks' average; the weights add up to 1."""
    probabilities_NxC = np.zeros(members[0].probabilities_NxC.shape)
    for member, weight in zip(members, weights, strict=True):
        probabilities_NxC += weight * member.probabilities_NxC
    prediction_N, names = probabilities_NxC.argmax(axis=1), members[0].class_names
    return Predictions(members[0].label_N, prediction_N, probabilities_NxC.astype(np.float32), names)
