"""A data set without its tensors, as recorded in the store and used to plan."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class DataDescription:
    """A data set's description.

    Attributes:
        digest: 32 hex digits of the SHA-256 of the source arrays, and of how they are scaled if that differs
            from version 0.1.0; equal for equal data.
        feature_shape: the shape of one instance before it is flattened, (28, 28) for MNIST.
        class_names: the name of each class index.
        n_train, n_test: instances.
        source: where the data came from: a function, a class or a path.
        scale: how features were scaled: `none`, a divisor, or `standardize`; empty if not recorded.
    """

    name: str
    digest: str
    feature_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    n_train: int
    n_test: int
    source: str
    scale: str = ""

    @property
    def n_features(self) -> int:
        """The number of features."""
        return math.prod(self.feature_shape)

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def is_image(shape: tuple[int, ...]) -> bool:
    """Tell whether an instance's shape is an image's: H x W, or 3-D with 1 or 3 channels first or last."""
    return len(shape) == 2 or (len(shape) == 3 and not {1, 3}.isdisjoint((shape[0], shape[-1])))
