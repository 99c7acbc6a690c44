"""The features that some training instance uses: the others are always 0, so a product needs no part of them.

67 of MNIST's 784 pixels are blank in every training image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class UsedFeatures:
    """Where the used features are.

    Attributes:
        used_U, blank_V: the indices of the used features and of the others, ascending.
        parts: (start, stop) of each stretch of neighbours among the used.
    """

    used_U: Tensor
    blank_V: Tensor
    parts: tuple[tuple[int, int], ...]

    def to(self, device: torch.device) -> "UsedFeatures":
        """Return them on a device."""
        return UsedFeatures(self.used_U.to(device), self.blank_V.to(device), self.parts)

    def copy(self, x_BxF: Tensor, out: Tensor) -> None:
        """Copy the used features of instances to `out`, B x U."""
        torch.cat([x_BxF[:, start:stop] for start, stop in self.parts], dim=1, out=out)


def used_features(x_NxF: Tensor) -> UsedFeatures:
    """Return the features that are not 0 in every instance."""
    is_used_F = (x_NxF.amax(0) != 0) | (x_NxF.amin(0) != 0)
    edges = torch.nn.functional.pad(is_used_F.int(), (1, 1)).diff()
    starts, stops = ((edges == change).nonzero().flatten().tolist() for change in (1, -1))
    return UsedFeatures(
        is_used_F.nonzero().flatten(),
        (~is_used_F).nonzero().flatten(),
        tuple(zip(starts, stops, strict=True)),
    )
