"""The inputs of a module's layers: averaged where they are wide, as they are elsewhere."""

import math

import pytest
import torch
from torch import nn

from lockstep.data.description import DataDescription
from lockstep.pictures.layer_inputs import WIDEST, layer_inputs
from lockstep.training.networks import ModuleNetwork

N = 300
"""More than the rows that a module evaluates at once."""


class Images(nn.Module):
    """Instances of 1 x 20 x 24: maps that are wide and maps that are not, and rows."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 4, 3, padding=1, stride=2)
        self.narrow = nn.Conv2d(4, 1500, 3, padding=1, stride=8)
        self.rows = nn.Linear(3000, 10)
        self.maps = nn.Conv2d(1500, 2, 1)

    def given(self, x):
        """What each layer after the first gets."""
        wide = torch.relu(self.first(x))
        narrow = torch.relu(self.wide(wide))
        maps = torch.relu(self.narrow(narrow))
        return {"wide": wide, "narrow": narrow, "rows": maps.flatten(1)[:, :3000], "maps": maps}

    def forward(self, x):
        given = self.given(x)
        self.maps(given["maps"])
        return self.rows(given["rows"])


class Sequences(nn.Module):
    """Instances of 480 features as sequences of 8 channels."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(480, 4000)
        self.sequence = nn.Conv1d(8, 2, 5)
        self.last = nn.Linear(992, 10)

    def given(self, x):
        sequence = torch.tanh(self.first(x)).view(len(x), 8, 500)
        return {"sequence": sequence, "last": torch.tanh(self.sequence(sequence)).flatten(1)}

    def forward(self, x):
        return self.last(self.given(x)["last"])


def averaged(x, dimension, n_blocks):
    """Means of n_blocks blocks, each as long as the others or one longer, that cover the dimension."""
    size = x.shape[dimension]
    ends = [(i * size // n_blocks, math.ceil((i + 1) * size / n_blocks)) for i in range(n_blocks)]
    means = [x.narrow(dimension, start, stop - start).mean(dimension) for start, stop in ends]
    return torch.stack(means, dimension)


def inputs_of(module, shape):
    data = DataDescription("data", "", shape, tuple("0123456789"), N, N, "")
    x_NxF = torch.rand(N, math.prod(shape), generator=torch.Generator().manual_seed(0))
    network = ModuleNetwork(module, data)
    with torch.no_grad():
        given = module.given(network.seen(x_NxF))
    return layer_inputs(network, x_NxF), given


def test_maps_are_averaged_over_blocks_of_pixels_and_rows_over_neighbours():
    torch.manual_seed(0)
    found, given = inputs_of(Images(), (20, 24))
    assert list(found) == ["wide", "narrow", "maps", "rows"]  # as they are called; not the one fed the data
    side = 7  # 16 maps of 7 x 7 are 784 features; of 8 x 8, 1,024
    expected = averaged(averaged(given["wide"], 2, side), 3, side).flatten(1)
    torch.testing.assert_close(found["wide"], expected)
    assert found["wide"].shape == (N, 784)
    torch.testing.assert_close(found["narrow"], given["narrow"].flatten(1))  # 4 x 10 x 12: as it is
    torch.testing.assert_close(found["rows"], averaged(given["rows"], 1, WIDEST))
    torch.testing.assert_close(found["maps"], averaged(given["maps"].mean((2, 3)), 1, WIDEST))


def test_sequences_are_averaged_over_blocks_of_their_length():
    torch.manual_seed(0)
    found, given = inputs_of(Sequences(), (480,))
    torch.testing.assert_close(found["sequence"], averaged(given["sequence"], 2, 121).flatten(1))
    torch.testing.assert_close(found["last"], given["last"])


@pytest.mark.parametrize("features", [WIDEST, WIDEST + 1])
def test_rows_are_averaged_from_the_first_feature_too_many(features):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, features), nn.Linear(features, 10)

        def given(self, x):
            return {"last": torch.relu(self.first(x))}

        def forward(self, x):
            return self.last(self.given(x)["last"])

    found, given = inputs_of(Rows(), (4,))
    expected = given["last"] if features == WIDEST else averaged(given["last"], 1, WIDEST)
    torch.testing.assert_close(found["last"], expected)
