"""A run's network, or a sweep's ensemble, as an MLflow logged model: loaded and served without Lockstep."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from lockstep.config.schema import RunConfig
from lockstep.data.description import EXAMPLES
from lockstep.execution import aside
from lockstep.recovery.temporary import temporary_folder
from lockstep.results import run_files
from lockstep.tracking import recorded_data, saved_model
from lockstep.tracking.recorded_run import without_weights
from lockstep.tracking.run import confirm, missing
from lockstep.tracking.saved_model import Described
from lockstep.tracking.store import Store
from lockstep.tracking.tags import ARTIFACTS
from lockstep.training import network_code

if TYPE_CHECKING:
    from lockstep.training.networks import Ensemble

log = logging.getLogger("lockstep")

NAME = "model"
"""The model's name, so that `runs:/<run id>/model` finds it too."""

ENSEMBLE = "ensemble"
"""An ensemble's name, at the sweep's parent run."""


def log_model(store: Store, run_id: str, meanwhile: Callable[[], object] = lambda: None) -> str | None:
    """Log the network of a run that was trained to its end: rows N x F to logits N x C.

    It is an exported program (`torch.export`) on the CPU, in the dtype of its weights, with a signature and
    an input example. The signature, and `class_names` in the metadata, name the class of each logit. Calling
    this again for a run returns the same model.

    Args:
        meanwhile: called while a worker exports it, if it does.

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
        config_file = Path(client.download_artifacts(run_id, run_files.CONFIG, str(folder)))
        config = RunConfig.from_yaml(config_file, store.uri)
        if config.tracking.weights != "all" and not _has_weights(store, run_id):
            if config.tracking.weights == "best":
                log.warning("no logged model: %s", without_weights(str(run.info.run_name), config))
            return None
        weights = Path(client.download_artifacts(run_id, run_files.WEIGHTS, str(folder)))
        if run_files.BUFFERS in run.data.tags.get(ARTIFACTS, "").split(","):
            client.download_artifacts(run_id, run_files.BUFFERS, str(folder))
        files, code = recorded_data.load(run, config).files(), network_code.needed_by([config])
        class_names = files.description.class_names
        step = max(point.step for point in client.get_metric_history(run_id, "train/loss"))

        def save(path: Path, model_id: str) -> str | None:
            described = Described(run_id, model_id, "logits", class_names)
            what = (described, config, code, files, weights, path)
            return aside.call(saved_model.save_run, *what, meanwhile=meanwhile)

        return _log(store, run, NAME, config.model.name, save, step)


def _has_weights(store: Store, run_id: str) -> bool:
    folder = str(Path(run_files.WEIGHTS).parent)
    return run_files.WEIGHTS in {entry.path for entry in store.client.list_artifacts(run_id, folder)}


def log_ensemble(
    store: Store, run_id: str, network: "Ensemble", example_NxF: NDArray[Any], class_names: Sequence[str]
) -> str:
    """Log an ensemble with a sweep's parent run, as `log_model` does; it returns probabilities.

    Args:
        run_id: the parent's.
        example_NxF: rows of the data set.
    """
    run = store.client.get_run(run_id)
    if known := _known(run):
        return known

    def save(path: Path, model_id: str) -> None:
        described = Described(run_id, model_id, "probabilities", tuple(class_names))
        saved_model.save(described, network, example_NxF[:EXAMPLES], path)

    uri = _log(store, run, ENSEMBLE, ENSEMBLE, save, step=0)
    assert uri is not None  # which an ensemble's is not
    return uri


def _log(
    store: Store, run: Run, name: str, kind: str, save: Callable[[Path, str], str | None], step: int
) -> str | None:
    """Log a model with a run, as its output after `step` iterations; return its URI, None if it can't be.

    Args:
        save: saves the model with this id to a path; returns why it can't be exported, None if it was.
    """
    client, run_id = store.client, run.info.run_id
    logged = _begun(store, run, name, kind)
    with temporary_folder() as folder:
        saved = folder / "saved"
        if (reason := save(saved, logged.model_id)) is not None:
            log.warning("no logged model: the network can't be exported: %s", reason)
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


def _begun(store: Store, run: Run, name: str, kind: str) -> LoggedModel:
    """Return the model of a run: one that a kill or another command has left incomplete, or a new one."""
    client, experiment_id = store.client, run.info.experiment_id
    search = partial(client.search_logged_models, [experiment_id], f"source_run_id = '{run.info.run_id}'")
    if found := search():
        return found[0]
    params = run.data.params
    made = client.create_logged_model(experiment_id, name, run.info.run_id, params=params, model_type=kind)
    # If another machine's command has made one as well, both take the first.
    first = min(search(), key=lambda model: (model.creation_timestamp, model.model_id))
    if first.model_id != made.model_id:
        client.delete_logged_model(made.model_id)
    return first


def _known(run: Run) -> str | None:
    """Return the URI of the model that a run has, None if it has none."""
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    return f"models:/{outputs[0].model_id}" if outputs else None
