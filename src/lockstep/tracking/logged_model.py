"""A run's network as an MLflow logged model, which can be loaded and served without Lockstep."""

import warnings
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from lockstep.config.schema import RunConfig
from lockstep.recovery.temporary import temporary_folder
from lockstep.tracking import recorded_data
from lockstep.tracking.run import confirm, missing
from lockstep.tracking.store import Store
from lockstep.training import artifacts
from lockstep.training.networks import Network

NAME = "model"
"""The model's name, so that `runs:/<run id>/model` finds it too."""

EXAMPLES = 5
"""The number of rows of the input example."""


def log_model(store: Store, run_id: str) -> str:
    """Log the network of a run that was trained to its end: rows N x F to logits N x C.

    It is an exported program (`torch.export`) on the CPU, in the dtype of its weights, with a signature and
    an input example. The signature, and `class_names` in the metadata, name the class of each logit. Calling
    this again for a run returns the same model.

    Returns:
        The model's URI, `models:/…`.

    Raises:
        Refused: if the run's data isn't available any more.
        MlflowException: if the store rejects it.
    """
    client = store.client
    run = client.get_run(run_id)
    if run.outputs is not None and run.outputs.model_outputs:
        return f"models:/{run.outputs.model_outputs[0].model_id}"
    with temporary_folder() as folder:
        config_file, weights = (
            Path(client.download_artifacts(run_id, artifact, str(folder)))
            for artifact in (artifacts.CONFIG, artifacts.WEIGHTS)
        )
        config = RunConfig.from_yaml(config_file, store.uri)
        dataset = recorded_data.load(run, config)
        network = artifacts.read_network(config, dataset.description, weights).eval()
        example_NxF = dataset.x_test[:EXAMPLES].to(next(network.parameters()).dtype).numpy()
        # A kill may have left an incomplete one.
        begun = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
        logged = (
            begun[0]
            if begun
            else client.create_logged_model(
                run.info.experiment_id, NAME, run_id, params=run.data.params, model_type=config.model.name
            )
        )
        class_names = list(dataset.description.class_names)
        described = Model(run_id=run_id, model_id=logged.model_id, metadata={"class_names": class_names})
        _save(network, example_NxF, class_names, folder / "saved", described)
        saved = folder / "saved"
        client.log_model_artifacts(logged.model_id, str(saved))
        files = [path for path in saved.rglob("*") if path.is_file()]
        confirm(missing(saved, files, partial(client.list_logged_model_artifacts, logged.model_id)))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    step = max(point.step for point in client.get_metric_history(run_id, "train/loss"))
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step)])
    return f"models:/{logged.model_id}"


def _save(
    network: Network, example_NxF: NDArray[Any], class_names: list[str], path: Path, described: Model
) -> None:
    logits = f"logits of {', '.join(class_names)}"
    signature = ModelSignature(
        Schema([TensorSpec(example_NxF.dtype, (-1, example_NxF.shape[1]))]),
        Schema([TensorSpec(example_NxF.dtype, (-1, len(class_names)), logits)]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export and MLflow warn about each other's use
        mlflow.pytorch.save_model(
            network,
            str(path),
            mlflow_model=described,
            signature=signature,
            input_example=example_NxF,
            # PyPI has no versions with a build's suffix (2.9.0+cpu).
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={metadata.version('torch').partition('+')[0]}",
                f"numpy=={np.__version__}",
            ],
            serialization_format="pt2",
        )
