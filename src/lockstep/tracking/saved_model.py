"""A network saved in MLflow's format, in a process that may load torch."""

import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType
from numpy.typing import NDArray

from lockstep.config.schema import RunConfig
from lockstep.data import table_model
from lockstep.data.array_files import ArrayFiles
from lockstep.data.description import EXAMPLES, TableDescription
from lockstep.recovery.temporary import temporary_folder
from lockstep.training.network_code import NetworkCode, add

if TYPE_CHECKING:
    from lockstep.training.networks import Ensemble, Network


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
        if (table := dataset.description.table) is None:
            save(described, network, example_NxF, path)
        else:
            with temporary_folder() as folder:
                save(described, network, example_NxF, folder / "network")
                _save_for_rows(described, table, example_NxF.dtype.name, folder, path)
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
            pip_requirements=_requirements("mlflow", "torch", "numpy"),
            serialization_format="pt2",
        )
        if isinstance(network, ModuleNetwork):
            saved = mlflow.pytorch.load_model(str(path))
            prediction.check_exported(saved, network, example_NxF)


def _save_for_rows(
    described: Described, table: TableDescription, dtype: str, folder: Path, path: Path
) -> None:
    """Save a network that takes the raw rows of a table, see TableModel.

    Args:
        dtype: of the network's features.
        folder: has the network as `save` saved it, in `network`; it may be changed.
    """
    import mlflow.pyfunc
    import pandas as pd

    network, program = Model.load(str(folder / "network")), folder / "network" / "data"
    columns = [asdict(column) for column in table.columns]
    known = {
        "dtype": dtype,
        "target": table.target,
        "class_names": described.class_names,
        "columns": columns,
    }
    (program / "columns.json").write_text(json.dumps(known), encoding="utf-8")
    model = Model(run_id=described.run_id, model_id=described.model_id)
    model.metadata = {"class_names": list(described.class_names)}
    model.add_flavor("pytorch", **{**network.flavors["pytorch"], "model_data": "data/data"})
    probabilities = [ColSpec("double", f"probability of {name}") for name in described.class_names]
    anything = AnyType()  # type: ignore[no-untyped-call] # pandas reads 2 as an int, 2.5 as a float
    signature = ModelSignature(
        Schema([ColSpec(anything, column.name, column.fill is None) for column in table.columns]),
        Schema([ColSpec("string", table.target), *probabilities]),
    )
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tells that it validates
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            str(path),
            loader_module="table_model",
            data_path=str(program),
            code_paths=[table_model.__file__],
            mlflow_model=model,
            signature=signature,
            input_example=pd.DataFrame(table.examples, columns=[column.name for column in table.columns]),
            pip_requirements=_requirements("mlflow", "torch", "numpy", "pandas"),
        )


def _requirements(*names: str) -> list[str]:
    # PyPI has no versions with a build's suffix (2.9.0+cpu).
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]
