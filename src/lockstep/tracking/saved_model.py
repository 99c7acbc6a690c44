"""A network saved in MLflow's format, in a process that may load torch."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from lockstep.config.schema import RunConfig
from lockstep.data.array_files import ArrayFiles
from lockstep.training.network_code import NetworkCode, add

if TYPE_CHECKING:
    from lockstep.training.networks import Ensemble, Network

EXAMPLES = 5
"""The number of rows of the input example."""


@dataclass(frozen=True)
class Described:
    """What is said of a model; `returns` names what it returns for each class."""

    run_id: str
    model_id: str
    returns: str
    class_names: tuple[str, ...]


def load() -> None:
    """Load what `save` imports on first use, which takes some seconds."""

    from lockstep.training.networks import load_exporter

    load_exporter()


def save_run(
    described: Described,
    config: RunConfig,
    code: Sequence[NetworkCode],
    files: ArrayFiles,
    weights: Path,
    path: Path,
) -> str | None:
    """Save a run's network.

    Args:
        code: that the network needs.
        weights: their file.

    Returns:
        Why the user's own network can't be exported; None if it was.

    Raises:
        Refused: if the file doesn't hold the network's weights.
    """
    from lockstep.data import datasets  # here, because these load torch
    from lockstep.training import artifacts
    from lockstep.training.networks import ModuleNetwork

    add(code)
    dataset = datasets.mapped(files)
    network = artifacts.read_network(config, dataset.description, weights).eval()
    example_NxF = dataset.x_test[:EXAMPLES].to(next(network.parameters()).dtype).numpy()
    try:
        save(described, network, example_NxF, path)
    except Exception as error:
        if not isinstance(network, ModuleNetwork):
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__}: {reason}"
    return None


def save(described: Described, network: "Network | Ensemble", example_NxF: NDArray[Any], path: Path) -> None:
    """Save a network with a signature and an input example of EXAMPLES rows."""
    import mlflow.pytorch

    from lockstep.training import prediction
    from lockstep.training.networks import ModuleNetwork

    dtype, class_names = example_NxF.dtype, list(described.class_names)
    model = Model(run_id=described.run_id, model_id=described.model_id)
    model.metadata = {"class_names": class_names}
    returns = f"{described.returns} of {', '.join(class_names)}"
    signature = ModelSignature(
        Schema([TensorSpec(dtype, (-1, example_NxF.shape[1]))]),
        Schema([TensorSpec(dtype, (-1, len(class_names)), returns)]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export and MLflow warn about each other's use
        mlflow.pytorch.save_model(
            network,
            str(path),
            mlflow_model=model,
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
        if isinstance(network, ModuleNetwork):
            saved = mlflow.pytorch.load_model(str(path))
            prediction.check_exported(saved, network, example_NxF)
