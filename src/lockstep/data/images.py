"""Instances in the shape in which a network of images sees them."""

from torch import Tensor

from lockstep.data.description import DataDescription, has_channels_last


def as_input(x_xF: Tensor, data: DataDescription) -> Tensor:
    """Return instances in `data.input_shape`, contiguous: C x H x W of images, wherever their channels are.

    Args:
        x_xF: flat instances, as data sets hold them, with any leading axes, which are kept. The features are
            in the source's order, which is H x W x C if the channels are last.
    """
    leading = x_xF.shape[:-1]
    if has_channels_last(data.feature_shape):
        return x_xF.reshape(*leading, *data.feature_shape).movedim(-1, -3).contiguous()
    return x_xF.reshape(*leading, *data.input_shape).contiguous()
