"""`make bench`: one epoch on MNIST, the workshop's own loop against Lockstep, as Markdown.

The sides alternate and the medians are compared, as a machine's speed drifts within minutes.
"""

import platform
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from platformdirs import user_cache_path
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

from lockstep.config import (
    DownloadedConfig,
    LogRegConfig,
    MLPConfig,
    RunConfig,
    SGDConfig,
    TrackingConfig,
    TrainerConfig,
)
from lockstep.data import load
from lockstep.models import LogisticRegression, MultilayerPerceptron
from lockstep.train import train

PAIRS = 5
STREAM = DownloadedConfig(name="mnist", batch_size=64, drop_last=True, val_size=0, shuffle_seed=0, root=None)
MODELS = {
    "logistic regression": (LogRegConfig(name="logreg"), lambda: LogisticRegression(784, 10)),
    "MLP 784-256-100-10": (
        MLPConfig(name="mlp", hidden_dims=(256, 100), dropout=0.25, activation="relu"),
        lambda: MultilayerPerceptron(784, 10),
    ),
}


def lockstep_epoch(model: LogRegConfig | MLPConfig) -> None:
    """An epoch and its evaluation by Lockstep."""
    config = RunConfig(
        model=model,
        optim=SGDConfig(name="sgd", lr=0.01, momentum=0.9, nesterov=False, weight_decay=0.0),
        data=STREAM,
        trainer=TrainerConfig(epochs=1, device="cpu", precision="float32", log_every=50),
        tracking=TrackingConfig(uri="unused", experiment="unused"),
        seed=0,
    )
    train([config], load(STREAM))


def workshop_epoch(build: Callable[[], nn.Module]) -> None:
    """An epoch and its evaluation as the workshop writes them: torchvision, ToTensor, DataLoader."""
    data = [
        torchvision.datasets.MNIST(user_cache_path("lockstep"), train=part, transform=ToTensor())
        for part in (True, False)
    ]
    batches = DataLoader(data[0], batch_size=64, shuffle=True, drop_last=True)
    test_batches = DataLoader(data[1], batch_size=64)
    module, criterion = build(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    for x, y in batches:
        logits = module(x.flatten(1))
        loss = criterion(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        (logits.argmax(dim=1) == y).float().mean().item()
    module.eval()
    with torch.no_grad():
        for x, y in test_batches:
            (module(x.flatten(1)).argmax(dim=1) == y).sum().item()


def seconds(epoch: Callable[[], None]) -> float:
    started = time.perf_counter()
    epoch()
    return time.perf_counter() - started


def main() -> None:
    console = Console(soft_wrap=True, highlight=False)
    load(STREAM)
    console.print(
        f"One epoch with its evaluation, MNIST, batch 64, SGD; seconds, median of {PAIRS} alternating pairs"
        f" after one that isn't counted.\nPython {platform.python_version()}, torch {torch.__version__},"
        f" {torch.get_num_threads()} threads, {platform.machine()}.\n"
    )
    console.print("| | workshop's loop | Lockstep | ratio, median of pairs (min - max) |")
    console.print("|---|---|---|---|")
    for name, (model, build) in MODELS.items():
        pairs = [
            (seconds(lambda b=build: workshop_epoch(b)), seconds(lambda m=model: lockstep_epoch(m)))
            for _ in range(PAIRS + 1)
        ][1:]
        theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [theirs / ours for theirs, ours in pairs]
        console.print(
            f"| {name} | {theirs:.2f} | {ours:.2f} |"
            f" {statistics.median(ratios):.1f}x ({min(ratios):.1f} - {max(ratios):.1f}) |"
        )


if __name__ == "__main__":
    main()
