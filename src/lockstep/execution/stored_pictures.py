"""Pictures of a stored run, drawn from its artifacts in any process."""

from collections.abc import Sequence
from pathlib import Path

from lockstep.config.schema import RunConfig
from lockstep.data.array_files import ArrayFiles
from lockstep.results import history_file, predictions_file, run_files
from lockstep.training import network_code
from lockstep.training.network_code import NetworkCode


def draw_ahead(files: ArrayFiles, shared: Path) -> None:
    """Draw the pictures that don't depend on which run wins, in a folder that lasts until then."""
    from lockstep.data import datasets  # here, because these load torch and matplotlib
    from lockstep.pictures import run_pictures

    run_pictures.draw_data(datasets.mapped(files), shared)


def draw(
    config: RunConfig,
    code: Sequence[NetworkCode],
    files: ArrayFiles,
    stored: Path,
    name: str,
    folder: Path,
    shared: Path,
) -> list[str]:
    """Draw a run's pictures; return a line for each that can't be drawn.

    Args:
        code: that its network needs.
        stored: its artifacts.
        name: the run's, for the pictures' titles.
        folder: where they are drawn.
        shared: the folder of `draw_ahead`, or any folder.
    """
    from lockstep.data import datasets  # here, because these load torch and matplotlib
    from lockstep.execution.task_training import attempted
    from lockstep.pictures import run_pictures
    from lockstep.training import artifacts
    from lockstep.training.loop import TrainedRun

    network_code.add(code)
    dataset = datasets.mapped(files)
    network = artifacts.read_network(config, dataset.description, stored / run_files.WEIGHTS)
    trained = TrainedRun(config, network, history_file.read(stored))
    predictions = stored / predictions_file.FILE  # which runs of earlier versions don't have
    known = predictions if predictions.exists() else None
    return attempted(run_pictures.drawings(trained, dataset, name, folder, shared, known))
