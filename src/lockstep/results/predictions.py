"""A network's predictions on the instances of one split. Suffixes: N instances, C classes."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions on the test or validation set, in the order of its instances.

    Attributes:
        label_N, prediction_N: class indices.
        probabilities_NxC: float32; softmax of the logits.
        class_names: C names.
    """

    label_N: IntArray
    prediction_N: IntArray
    probabilities_NxC: npt.NDArray[np.float32]
    class_names: tuple[str, ...]

    @cached_property
    def is_right_N(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction is its label."""
        return np.equal(self.label_N, self.prediction_N)

    @property
    def accuracy(self) -> float:
        """The share of right predictions."""
        return float(self.is_right_N.mean())

    def confusion(self) -> npt.NDArray[np.int64]:
        """Return how many instances of each class (row) were predicted as each class (column), C x C."""
        n_classes = len(self.class_names)
        pairs_N = self.label_N.astype(np.int64) * n_classes + self.prediction_N
        return np.bincount(pairs_N, minlength=n_classes**2).reshape(n_classes, n_classes)

    def mistakes(self) -> npt.NDArray[np.int64]:
        """Return the wrong predictions' indices, those with the highest probability first."""
        wrong = np.flatnonzero(~self.is_right_N)
        return wrong[np.argsort(-self.probabilities_NxC[wrong, self.prediction_N[wrong]], kind="stable")]
