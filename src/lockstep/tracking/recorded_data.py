"""The data that a recorded run was trained on, loaded again."""

import os
from pathlib import Path

from mlflow.entities import Run

from lockstep.config.data_config import ArraysConfig, DataConfig, DigitsConfig, DownloadedConfig, TableConfig
from lockstep.config.errors import Refused
from lockstep.config.schema import RunConfig
from lockstep.data import downloads, sources
from lockstep.data.array_files import Source


def load(run: Run, config: RunConfig, moved_to: str | None = None) -> Source:
    """Load the data that a run in the store was trained on.

    Args:
        moved_to: where the data is now, the user's own file or the folder of MNIST; None: where it was.

    Raises:
        Refused: if it isn't available, or its content is not what the run was trained on.
    """
    data = _located(config.data, moved_to)
    source = sources.load(data)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    recorded = inputs[0].dataset.digest if inputs else source.description.digest
    if source.description.digest != recorded and "data.scale" not in run.data.params:
        # Recorded before there was data.scale: all of uint8 was divided by 255.
        source = sources.load(data.model_copy(update={"scale": "255"}))
    if source.description.digest != recorded:
        raise Refused(
            [
                f"{source.description.source}: not the data that run {run.info.run_id} was trained on"
                f" (digest {source.description.digest} instead of {recorded})"
            ]
        )
    return source


def _located(data: DataConfig, moved_to: str | None) -> DataConfig:
    if isinstance(data, DigitsConfig):
        if moved_to is not None:
            raise Refused([f"--data {moved_to}: data=digits is part of scikit-learn; leave --data out"])
        return data
    key = "path" if isinstance(data, ArraysConfig | TableConfig) else "root"
    if moved_to is not None:
        return data.model_copy(update={key: os.path.abspath(os.path.expanduser(moved_to))})
    if isinstance(data, DownloadedConfig) and data.root is not None:
        # Others may have written the config: nothing is downloaded to a folder that it names.
        root = data.root if downloads.is_complete(data.name, Path(data.root)) else None
        return data.model_copy(update={"root": root})
    return data
