"""A run's network, or a sweep's ensemble, as an MLflow logged model: loaded and served without Lockstep."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from lockstep.config.schema import RunConfig
from lockstep.recovery.temporary import temporary_folder
from lockstep.tracking import recorded_data
from lockstep.tracking.recorded_run import without_weights
from lockstep.tracking.run import confirm, missing
from lockstep.tracking.store import Store
from lockstep.tracking.tags import ARTIFACTS
from lockstep.training import artifacts, prediction
from lockstep.training.networks import Ensemble, ModuleNetwork, Network

log = logging.getLogger("lockstep")

NAME = "model"
"""The model's name, so that `runs:/<run id>/model` finds it too."""

ENSEMBLE = "ensemble"
"""An ensemble's name, at the sweep's parent run."""

EXAMPLES = 5
"""The number of rows of the input example."""


def log_model(store: Store, run_id: str) -> str | None:
    """Log the network of a run that was trained to its end: rows N x F to logits N x C.

    It is an exported program (`torch.export`) on the CPU, in the dtype of its weights, with a signature and
    an input example. The signature, and `class_names` in the metadata, name the class of each logit. Calling
    this again for a run returns the same model.

    Returns:
        The model's URI, `models:/…`; None for a run without weights (`tracking.weights`), and with a warning
        for a module that can't be exported.

    Raises:
        Refused: if the run's data isn't available any more, or its network's code was not named.
        MlflowException: if the store rejects it.
    """
    client = store.client
    run = client.get_run(run_id)
    if known := _known(run):
        return known
    with temporary_folder() as folder:
        config_file = Path(client.download_artifacts(run_id, artifacts.CONFIG, str(folder)))
        config = RunConfig.from_yaml(config_file, store.uri)
        if config.tracking.weights != "all" and not _has_weights(store, run_id):
            if config.tracking.weights == "best":
                log.warning("no logged model: %s", without_weights(str(run.info.run_name), config))
            return None
        weights = Path(client.download_artifacts(run_id, artifacts.WEIGHTS, str(folder)))
        if artifacts.BUFFERS in run.data.tags.get(ARTIFACTS, "").split(","):
            client.download_artifacts(run_id, artifacts.BUFFERS, str(folder))
        dataset = recorded_data.load(run, config)
        network = artifacts.read_network(config, dataset.description, weights).eval()
    example_NxF = dataset.x_test[:EXAMPLES].to(next(network.parameters()).dtype).numpy()
    class_names = dataset.description.class_names
    step = max(point.step for point in client.get_metric_history(run_id, "train/loss"))
    return _log(
        store, run, _Logged(NAME, config.model.name, network, "logits", example_NxF, class_names), step
    )


def _has_weights(store: Store, run_id: str) -> bool:
    folder = str(Path(artifacts.WEIGHTS).parent)
    return artifacts.WEIGHTS in {entry.path for entry in store.client.list_artifacts(run_id, folder)}


def log_ensemble(
    store: Store, run_id: str, network: Ensemble, example_NxF: NDArray[Any], class_names: Sequence[str]
) -> str:
    """Log an ensemble with a sweep's parent run, as `log_model` does; it returns probabilities.

    Args:
        run_id: the parent's.
        example_NxF: rows of the data set.
    """
    run = store.client.get_run(run_id)
    if known := _known(run):
        return known
    example_NxF = example_NxF[:EXAMPLES]
    described = _Logged(ENSEMBLE, ENSEMBLE, network, "probabilities", example_NxF, tuple(class_names))
    uri = _log(store, run, described, step=0)
    assert uri is not None  # which an ensemble's is not
    return uri


@dataclass(frozen=True)
class _Logged:
    """What is logged of a model; `returns` names what it returns for each class."""

    name: str
    kind: str
    network: Network | Ensemble
    returns: str
    example_NxF: NDArray[Any]
    class_names: tuple[str, ...]


def _log(store: Store, run: Run, model: _Logged, step: int) -> str | None:
    """Log a model with a run, as its output after `step` iterations; return its URI, None if it can't be."""
    client, run_id, experiment_id = store.client, run.info.run_id, run.info.experiment_id
    # A kill may have left an incomplete one.
    begun = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    logged = (
        begun[0]
        if begun
        else client.create_logged_model(
            experiment_id, model.name, run_id, params=run.data.params, model_type=model.kind
        )
    )
    with temporary_folder() as folder:
        saved = folder / "saved"
        try:
            _save(model, saved, Model(run_id=run_id, model_id=logged.model_id))
        except Exception as error:
            if not isinstance(model.network, ModuleNetwork):
                raise
            reason = (str(error).strip().splitlines() or [""])[0]
            log.warning(
                "no logged model: the network can't be exported: %s: %s", type(error).__name__, reason
            )
            client.delete_logged_model(logged.model_id)
            return None
        client.log_model_artifacts(logged.model_id, str(saved))
        files = [path for path in saved.rglob("*") if path.is_file()]
        confirm(missing(saved, files, partial(client.list_logged_model_artifacts, logged.model_id)))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    try:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step)])
    except MlflowException:
        if known := _known(client.get_run(run_id)):  # by another command, with the same sweep
            return known
        raise
    return f"models:/{logged.model_id}"


def _known(run: Run) -> str | None:
    """Return the URI of the model that a run has, None if it has none."""
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    return f"models:/{outputs[0].model_id}" if outputs else None


def _save(model: _Logged, path: Path, described: Model) -> None:
    dtype, class_names = model.example_NxF.dtype, list(model.class_names)
    described.metadata = {"class_names": class_names}
    returns = f"{model.returns} of {', '.join(class_names)}"
    signature = ModelSignature(
        Schema([TensorSpec(dtype, (-1, model.example_NxF.shape[1]))]),
        Schema([TensorSpec(dtype, (-1, len(class_names)), returns)]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export and MLflow warn about each other's use
        mlflow.pytorch.save_model(
            model.network,
            str(path),
            mlflow_model=described,
            signature=signature,
            input_example=model.example_NxF,
            # PyPI has no versions with a build's suffix (2.9.0+cpu).
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={metadata.version('torch').partition('+')[0]}",
                f"numpy=={np.__version__}",
            ],
            serialization_format="pt2",
        )
        if isinstance(model.network, ModuleNetwork):
            saved = mlflow.pytorch.load_model(str(path))
            prediction.check_exported(saved, model.network, model.example_NxF)
