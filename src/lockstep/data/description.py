"""A data set without its tensors: what is recorded of it, and what a run's cost depends on."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DataDescription:
    """A data set's description.

    Attributes:
        digest: 32 hex digits of the source arrays' content: equal digests, equal data.
        feature_shape: the shape of one instance before it is flattened, (28, 28) for MNIST.
        n_train, n_test: instances.
        source: where the data came from.
    """

    name: str
    digest: str
    feature_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    n_train: int
    n_test: int
    source: str

    @property
    def n_features(self) -> int:
        """Features of an instance."""
        return math.prod(self.feature_shape)

    @property
    def n_classes(self) -> int:
        """Classes to tell apart."""
        return len(self.class_names)
