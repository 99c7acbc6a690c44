"""Small convolutional networks as a user writes them, see `model=module`."""

import torch
from torch import Tensor, nn


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling."""

    def __init__(self, input_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_shape[0], 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, n_classes)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x))).flatten(1)
        logits: Tensor = self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))
        return logits


class Normalised(nn.Module):
    """Two convolutions of 16 and 32 maps with batch normalisation, each pooled."""

    def __init__(self, input_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(input_shape[0], 16, 3), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.25)
        self.fc1, self.fc2 = nn.Linear(32 * 25, 64), nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x)))).flatten(1)
        logits: Tensor = self.fc2(self.drop(torch.relu(self.fc1(x))))
        return logits


class Wide(nn.Module):
    """Two convolutions of 32 and 64 maps, pooled once: the network of PyTorch's MNIST example."""

    def __init__(self, input_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(input_shape[0], 32, 3), nn.Conv2d(32, 64, 3)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.25)
        self.fc1, self.fc2 = nn.Linear(64 * 144, 128), nn.Linear(128, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.pool(torch.relu(self.conv2(torch.relu(self.conv1(x))))).flatten(1)
        logits: Tensor = self.fc2(self.drop(torch.relu(self.fc1(self.drop(x)))))
        return logits
