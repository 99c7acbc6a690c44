import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix

from lockstep.results.predictions import Predictions


def predictions(n=200, n_classes=5, seed=0):
    rng = np.random.default_rng(seed)
    label_N = rng.integers(n_classes - 1, size=n)  # the last class has no instance
    prediction_N = np.where(rng.random(n) < 0.7, label_N, rng.integers(n_classes, size=n))
    probabilities_NxC = rng.dirichlet(np.ones(n_classes), n).astype(np.float32)
    return Predictions(label_N, prediction_N, probabilities_NxC, tuple(map(str, range(n_classes))))


def test_accuracy_and_confusion_are_scikit_learns():
    found = predictions()
    assert found.accuracy == accuracy_score(found.label_N, found.prediction_N)
    expected = confusion_matrix(found.label_N, found.prediction_N, labels=range(5))
    assert np.array_equal(found.confusion(), expected)


def test_mistakes_are_the_wrong_ones_most_confident_first():
    found = predictions()
    mistakes = found.mistakes()
    assert set(mistakes) == set(np.flatnonzero(found.label_N != found.prediction_N))
    said = found.probabilities_NxC[mistakes, found.prediction_N[mistakes]]
    assert np.all(np.diff(said) <= 0)
