"""A run's network as a logged model of MLflow, which needs no code of ours to be loaded or to be served."""

import tempfile
import warnings
from pathlib import Path

import mlflow.pytorch
import numpy as np
import torch
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from lockstep import models
from lockstep.config import RunConfig
from lockstep.tracking import Store
from lockstep.train import generator

NAME = "model"
"""So that it is found as `runs:/<run id>/model` too."""

WEIGHTS = "model/state_dict.pt"


def log_model(uri: str, run_id: str, config: RunConfig, example_NxF: np.ndarray, n_classes: int) -> str:
    """Log the network of a run that was trained to its end: logits of rows, N x F to N x C.

    It is an exported program (`torch.export`) on the CPU, in the dtype of its weights, with a signature and
    an input example. One that is there stays.

    Args:
        uri: the store's, which has the run.
        example_NxF: rows of the run's data set, two or more.

    Returns:
        Its address, `models:/…`.

    Raises:
        MlflowException: if the store doesn't take it.
    """
    store = Store(uri)
    client, run = store.client, store.client.get_run(run_id)
    if run.outputs is not None and run.outputs.model_outputs:
        return f"models:/{run.outputs.model_outputs[0].model_id}"
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        weights = torch.load(client.download_artifacts(run_id, WEIGHTS, folder), weights_only=True)
        network = models.build(config.model, example_NxF.shape[1], n_classes, generator(config.seed, "init"))
        network.to(next(iter(weights.values())).dtype).load_state_dict(weights)
        network.eval()
        example_NxF = example_NxF.astype(str(next(iter(weights.values())).dtype).removeprefix("torch."))
        logged = client.create_logged_model(
            run.info.experiment_id, NAME, run_id, params=run.data.params, model_type=config.model.name
        )
        saved = Path(folder) / "saved"
        _save(network, example_NxF, n_classes, saved, Model(run_id=run_id, model_id=logged.model_id))
        client.log_model_artifacts(logged.model_id, str(saved))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    step = int(max(point.step for point in client.get_metric_history(run_id, "train/loss")))
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step)])
    return f"models:/{logged.model_id}"


def _save(
    network: torch.nn.Module, example_NxF: np.ndarray, n_classes: int, path: Path, described: Model
) -> None:
    signature = ModelSignature(
        Schema([TensorSpec(example_NxF.dtype, (-1, example_NxF.shape[1]))]),
        Schema([TensorSpec(example_NxF.dtype, (-1, n_classes))]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's and MLflow's own, of each other
        mlflow.pytorch.save_model(
            network,
            str(path),
            mlflow_model=described,
            signature=signature,
            input_example=example_NxF,
            # A build's suffix (2.9.0+cpu) is not on PyPI.
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.partition('+')[0]}",
                f"numpy=={np.__version__}",
            ],
            serialization_format="pt2",
        )
