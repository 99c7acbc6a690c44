"""Random shifts and flips of training images: `data.augment`.

Suffixes: N instances of the training set, V variants of one, R rows that are gathered at once, F features. An
image's features lie as A x H x W x D: its C channels are either A or D, and the other is 1.
"""

import torch
from torch import Tensor

from lockstep.config.data_config import AugmentConfig
from lockstep.data.description import DataDescription, has_channels_last

ROWS_AT_ONCE = 128
"""Instances whose variants are gathered at once. More take more of a core's cache and aren't faster."""


class Augmentation:
    """The variants of a data set's training images: shifted, and as they are or mirrored.

    An index stands for a variant of an instance: variant v of instance i of N has the index v * N + i. So
    minibatches are indices with and without augmentation.

    Pixels that a shift uncovers are blank: they have the value of a raw 0. Where each feature is standardized
    by itself, a pixel keeps its difference from blank, so that blank pixels stay blank where they are moved.

    Args:
        x_blank: the data set's, on the device and of the type of the instances.
        generator: a generator on the CPU, for nothing else; it draws the variants.
    """

    def __init__(
        self, config: AugmentConfig, data: DataDescription, x_blank: Tensor, generator: torch.Generator
    ) -> None:
        self._n, self._generator = data.n_train, generator
        self._x_blank = x_blank if x_blank.any() else None
        self._sources_VxF = _sources(config, data).to(x_blank.device)

    def draw(self, indices_N: Tensor) -> Tensor:
        """Return the index of a random variant of each instance, all equally likely."""
        n_variants = len(self._sources_VxF)
        return indices_N + self._n * torch.randint(n_variants, indices_N.shape, generator=self._generator)

    def gather(self, x_NxF: Tensor, indices_R: Tensor, out_RxF: Tensor) -> None:
        """Copy the variants of training instances at `indices_R` to `out_RxF`."""
        x_Rx1 = x_NxF.new_zeros(ROWS_AT_ONCE, x_NxF.shape[1] + 1)  # F features, and a 0
        sources_RxF = self._sources_VxF.new_empty(ROWS_AT_ONCE, x_NxF.shape[1])
        parts = zip(torch.split(indices_R, ROWS_AT_ONCE), torch.split(out_RxF, ROWS_AT_ONCE), strict=True)
        for indices, out in parts:
            n = len(indices)
            features = torch.index_select(x_NxF, 0, indices % self._n, out=x_Rx1[:n, :-1])
            sources = torch.index_select(self._sources_VxF, 0, indices // self._n, out=sources_RxF[:n])
            if self._x_blank is not None:
                features -= self._x_blank
            torch.gather(x_Rx1[:n], 1, sources, out=out)
            if self._x_blank is not None:
                out += self._x_blank


def _sources(config: AugmentConfig, data: DataDescription) -> Tensor:
    """Return V x F: the feature that each feature of a variant comes from, or F where it is blank.

    They take 1 MB for MNIST with shifts by 4 and flips, and 4 MB for images of 3 x 32 x 32.
    """
    shape, shift = data.feature_shape, config.shift
    shape_AxHxWxD = (1, *shape) if has_channels_last(shape) else (*(1, *shape)[-3:], 1)
    _, height, width, _ = shape_AxHxWxD
    features = torch.arange(data.n_features).view(shape_AxHxWxD)
    variants = []
    for image in (features, features.flip(2)) if config.flip else (features,):
        framed = torch.nn.functional.pad(image, (0, 0, *(shift,) * 4), value=data.n_features)
        windows = framed.unfold(1, height, 1).unfold(2, width, 1)  # A x shifts x shifts x D x H x W
        variants.append(windows.permute(1, 2, 0, 4, 5, 3).reshape(-1, data.n_features))
    return torch.cat(variants)
