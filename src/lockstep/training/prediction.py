"""A trained network's predictions on the instances that it was not trained on."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lockstep.data.datasets import Dataset
from lockstep.results.history import HeldOut
from lockstep.results.predictions import Predictions
from lockstep.training.array import MODULE_ROWS, rows_at_once
from lockstep.training.device import cpu_settings
from lockstep.training.loop import TrainedRun
from lockstep.training.networks import Ensemble, Network


def predict(run: TrainedRun, dataset: Dataset) -> dict[HeldOut, Predictions]:
    """Return a run's predictions on the test set, and on its validation set if it has one.

    They are computed as the run's accuracies are, so they agree with them.
    """
    _, val_N = dataset.split(run.config.data)
    found: dict[HeldOut, Predictions] = {"test": _on(run, dataset.x_test, dataset.y_test, dataset)}
    if len(val_N):
        found["val"] = _on(run, dataset.x_train[val_N], dataset.y_train[val_N], dataset)
    return found


@torch.no_grad()
def probabilities(ensemble: Ensemble, x_NxF: Any) -> NDArray[Any]:
    """Return an ensemble's probabilities of each class for rows of numbers, N x C, float32."""
    parts = torch.split(torch.as_tensor(x_NxF, dtype=torch.float32), MODULE_ROWS)
    return torch.cat([ensemble(part) for part in parts]).numpy()


@torch.no_grad()
def check_exported(exported: nn.Module, network: Network, example_NxF: NDArray[Any]) -> None:
    """Check that an exported program gives its network's logits for any number of rows.

    Raises:
        ValueError: if it gives others. The program may raise anything else.
    """
    for n_rows in (1, 3):
        x_NxF = torch.from_numpy(example_NxF[np.arange(n_rows) % len(example_NxF)])
        if not torch.allclose(exported(x_NxF), network(x_NxF), rtol=1e-4, atol=1e-5):
            raise ValueError(f"the exported program gives other logits for {n_rows} rows")


@torch.no_grad()
def _on(run: TrainedRun, x_NxF: Tensor, y_N: Tensor, dataset: Dataset) -> Predictions:
    network, weight = run.network, next(run.network.parameters())
    with cpu_settings(weight.device, threads=run.config.trainer.threads):
        parts = torch.split(x_NxF.to(weight.device, weight.dtype), rows_at_once(network))
        logits_NxC = torch.cat([network.eval()(part) for part in parts]).cpu()
        probabilities_NxC = logits_NxC.double().softmax(dim=1).float()
    prediction_N = logits_NxC.argmax(dim=1)
    return Predictions(
        y_N.numpy(), prediction_N.numpy(), probabilities_NxC.numpy(), dataset.description.class_names
    )
