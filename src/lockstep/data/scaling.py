"""Scaling of features: `data.scale`. N training and M test instances, F features."""

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lockstep.config.data_config import DataConfig
from lockstep.data.description import is_image

Array = NDArray[Any]

FEW_LEVELS = 16
"""Images of uint8 up to this are masks or have few grey levels, as scikit-learn's digits. Divided by 255 they
would be near zero: digits saved as uint8 reached 0.08 in 3 epochs of logreg; as they are, 0.93."""

LARGE, SMALL = 100, 0.1
"""Largest magnitudes of features with which the default learning rates diverge, or hardly move."""


@dataclass(frozen=True)
class Scaling:
    """What a config asks for.

    Attributes:
        scale: `data.scale`.
        val_size: of the split that features are standardized by; 0 unless they are.
    """

    scale: str
    val_size: int

    @classmethod
    def of(cls, config: DataConfig) -> Self:
        """Return the scaling of a config."""
        return cls(config.scale, config.val_size if config.scale == "standardize" else 0)

    def resolved(self, auto: int) -> str:
        """Return what it comes to: `none`, a divisor, or `standardize`.

        Args:
            auto: the divisor that `auto` stands for, 1 for none.
        """
        divisor = {"none": 1, "255": 255}.get(self.scale, auto)
        return self.scale if self.scale == "standardize" else "none" if divisor == 1 else str(divisor)

    def digest(self, of_arrays: str, resolved: str, earlier: int) -> str:
        """Return the digest of scaled data: that of its arrays, if scaled as it always was.

        Args:
            earlier: the divisor before `data.scale` existed. Stored runs are recognised by its digest.
        """
        if resolved == ("none" if earlier == 1 else str(earlier)):
            return of_arrays
        return hashlib.sha256(f"{of_arrays} {resolved} {self.val_size}".encode()).hexdigest()[:32]


def automatic(x_train: Array) -> int:
    """Return the divisor that `auto` stands for with a user's arrays, 1 for none.

    Pixels of uint8 are divided by 255, so uint8 over 127, and over 16 in the shape of an image of 1 or 3
    channels: stored runs are recognised by how their data was scaled. Everything else is taken as it is, such
    as 0/1 dummies.
    """
    if x_train.dtype != np.uint8:
        return 1
    shape = x_train.shape[1:]
    is_grey_or_color = len(shape) == 2 or (is_image(shape) and not {1, 3}.isdisjoint((shape[0], shape[-1])))
    return 255 if x_train.max() > (FEW_LEVELS if is_grey_or_color else 127) else 1


def flat(x_train: Array, x_test: Array) -> list[Array]:
    """Return N x F, M x F, and 1 x F of zeros, as they are."""
    n_features = math.prod(x_train.shape[1:])
    return [x.reshape(len(x), n_features) for x in (x_train, x_test, np.zeros_like(x_train[:1]))]


def scaled(x_train: Array, x_test: Array, resolved: str, val_size: int) -> list[Array]:
    """Return N x F, M x F, and 1 x F of what is blank, in float32, scaled as resolved.

    Blank is a raw 0; in a feature that is standardized, but constant, it is the constant.
    """
    flat_NxF = flat(x_train, x_test)
    if resolved != "standardize":
        divisor = 1 if resolved == "none" else int(resolved)
        # Cast first, then divide in float32: so pixels equal torchvision's ToTensor bit for bit.
        return [np.divide(x := each.astype(np.float32), np.float32(divisor), out=x) for each in flat_NxF]
    from lockstep.data.minibatches import split  # here, because it loads torch

    n = len(x_train)
    # A val_size that leaves nothing to train on is refused later, by check_stream.
    fitted_NxF = flat_NxF[0][split(n, val_size)[0].numpy() if 0 < val_size < n else slice(None)]
    center_F, spread_F = fitted_NxF.mean(0, dtype=np.float64), fitted_NxF.std(0, dtype=np.float64)
    is_constant_F = fitted_NxF.min(0) == fitted_NxF.max(0)
    center_F[is_constant_F] = fitted_NxF[0][is_constant_F]  # its mean may be off by rounding
    spread_F[is_constant_F] = 1
    flat_NxF[2][0][is_constant_F] = fitted_NxF[0][is_constant_F]  # a 0 where all is 255 would be -255
    return [((x - center_F) / spread_F).astype(np.float32) for x in flat_NxF]


def warning(x_train: Array) -> str | None:
    """Return a warning if features are so large or so small that training may fail; None otherwise."""
    largest = max(-float(x_train.min()), float(x_train.max()))
    if SMALL <= largest <= LARGE:
        return None
    what = f"reach {largest:,.6g}" if largest > LARGE else f"are at most {largest:.3g}"
    return (
        f"features {what}: networks may diverge or predict a single class;"
        " data.scale=standardize gives each feature mean 0 and standard deviation 1"
    )
