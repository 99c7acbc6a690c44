"""A data set without its tensors, as recorded in the store and used to plan."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DataDescription:
    """A data set's description.

    Attributes:
        digest: 32 hex digits of the SHA-256 of the source arrays; equal for equal data.
        feature_shape: the shape of one instance before it is flattened, (28, 28) for MNIST.
        n_train, n_test: instances.
        source: where the data came from: a function, a class or a path.
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
        """The number of features."""
        return math.prod(self.feature_shape)

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)
