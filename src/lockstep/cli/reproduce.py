"""`python -m lockstep reproduce <run id>`: train a stored run again, and compare."""

import copy
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Metric, Run

from lockstep.cli.comparison import Comparison, Series
from lockstep.config.errors import Refused
from lockstep.config.identity import NUMERICS_VERSION
from lockstep.config.model_config import ModuleConfig
from lockstep.config.schema import RunConfig
from lockstep.data import datasets, sources
from lockstep.data.datasets import Dataset
from lockstep.data.description import DataDescription, iterations_per_epoch
from lockstep.pictures import run_pictures
from lockstep.pictures.representations import separation
from lockstep.recovery.temporary import temporary_folder
from lockstep.results import history_file, predictions_file, run_files
from lockstep.results.history import MEASURES, History
from lockstep.sweep.checks import check_memory
from lockstep.tracking import recorded_data
from lockstep.tracking.links import verb
from lockstep.tracking.run import Recorded, RecordedRun
from lockstep.tracking.store import Store
from lockstep.tracking.tags import (
    ARTIFACTS,
    CANARY,
    KIND,
    NUMERICS,
    OVERRIDES,
    PRUNED_AT,
    RUN_KEY,
    UNTAGGED,
    WARNING,
)
from lockstep.training import artifacts, network_code
from lockstep.training.canary import canary
from lockstep.training.device import device_of
from lockstep.training.loop import TrainedRun, train
from lockstep.training.prediction import predict


def reproduce(store: Store, run_id: str, data: str | None = None, code: str | None = None) -> Comparison:
    """Train a run again, alone, from its config in the store, and compare all numbers with the stored ones.

    Args:
        data: where the run's data is now, None for where it was.
        code: the file with the code of the user's own network, which is run; no store chooses it.

    Raises:
        MlflowException: if the store has no such run.
        Refused: if it isn't a FINISHED training run, its config or data isn't available, or what the store
            has of it can't be used.
    """
    run = store.client.get_run(run_id)
    tags = run.data.tags
    if tags.get(KIND) != "run":
        raise Refused([f"{run_id}: not a training run; a sweep's runs are reproduced one by one"])
    if run.info.status != "FINISHED":
        raise Refused([f"{run_id}: {run.info.status}; only a run that is FINISHED can be compared"])
    with temporary_folder() as folder:
        stored = Recorded(store.client, run_id).download(folder)
        if not (stored / run_files.CONFIG).exists():
            raise Refused([f"{run_id}: the store has no {run_files.CONFIG} of it"])
        config = RunConfig.from_yaml(stored / run_files.CONFIG, store.uri)
        try:
            dataset = datasets.mapped(recorded_data.load(run, config, data).files())
        except Refused as refused:
            hint = [] if data else [f"if it was moved: {verb('reproduce', run_id)} --data PATH"]
            raise Refused([*refused.problems, *hint]) from refused
        _allow_code(config, run_id, code)
        pruned_at = _checked(config, dataset.description, stored, tags.get(PRUNED_AT))
        [again] = train([config], dataset, pause_at=pruned_at, rungs=_evaluated(stored))
        comparison = Comparison(run.info.run_name or tags.get(OVERRIDES, run_id))
        version = int(tags.get(NUMERICS, UNTAGGED))
        if config.run_keys(dataset.description.digest).get(version) != tags.get(RUN_KEY):
            comparison.differences.append("how Lockstep computes, since it was recorded")
        elif version != NUMERICS_VERSION:
            versions = f"numerics version {version}, here {NUMERICS_VERSION}"
            comparison.version = f"trained with {versions}: the same bits can't be expected"
        _leave_out_unmeasured(again.history, stored)
        _compare_history(comparison, stored, again.history)
        _compare_metrics(comparison, store, run, again, dataset)
        if pruned_at is None:
            _compare_weights(comparison, stored, again)
            _compare_predictions(comparison, stored, again, dataset)
            written = set(filter(None, tags.get(ARTIFACTS, "").split(",")))
            _compare_pictures(comparison, stored, again, dataset, tags.get(WARNING, ""), written)
    comparison.machine = _machine(tags.get(CANARY, "").split(), config, comparison)
    return comparison


def _allow_code(config: RunConfig, run_id: str, code: str | None) -> None:
    if isinstance(config.model, ModuleConfig) == (code is not None):
        if code is not None and isinstance(config.model, ModuleConfig):
            network_code.allow(config.model, code)
        return
    if code is not None:
        raise Refused([f"--code={code}: for model=module; the run's is {config.model.name}"])
    copy_of = f"the store has a copy of it, in the run's artifacts, code/{_file(config)}"
    again = f"{verb('reproduce', run_id, '--code', _file(config))}"
    raise Refused([f"{run_id}: its network is the user's own code, to be named: {again}; {copy_of}"])


def _file(config: RunConfig) -> str:
    return Path(getattr(config.model, "path", "").rpartition(":")[0]).name


def _checked(config: RunConfig, data: DataDescription, stored: Path, pruned_at: str | None) -> int | None:
    """Check what others may have written, before anything trains.

    Returns:
        The iterations after which the run was pruned, None if it was not.

    Raises:
        Refused: if it can't be this run's.
    """
    problems = sources.check_stream(config.data, data) + check_memory(config, data)
    epochs = float(pruned_at) if pruned_at and re.fullmatch(r"\d{1,9}(\.\d{1,3})?", pruned_at) else 0.0
    if pruned_at is not None and not 0 < epochs <= config.trainer.epochs:
        problems.append(f"{PRUNED_AT}={pruned_at}: not within the run's {config.trainer.epochs} epochs")
    if problems:
        raise Refused(problems)
    if (stored / run_files.WEIGHTS).exists():
        artifacts.read_network(config, data, stored / run_files.WEIGHTS)
    if (stored / history_file.FILE).exists():
        history_file.read(stored)
    return None if pruned_at is None else max(1, round(epochs * iterations_per_epoch(config.data, data)))


def _evaluated(stored: Path) -> list[int]:
    """Return the iterations after which a run was evaluated, among them those at a search's rungs."""
    if not (stored / history_file.FILE).exists():
        return []
    found = {evaluation.iteration for evaluation in history_file.read(stored).evaluations}
    return [iterations for iterations in found if isinstance(iterations, int)]  # others may have written it


def _leave_out_unmeasured(again: History, stored: Path) -> None:
    """Leave out the scores that the run's version did not measure."""
    if not (stored / history_file.FILE).exists():
        return
    recorded = {(e.split, e.iteration): e for e in history_file.read(stored).evaluations}
    for place, now in enumerate(again.evaluations):
        before = recorded.get((now.split, now.iteration), now)
        lacking: dict[str, Any] = {name: None for name in MEASURES if getattr(before, name) is None}
        again.evaluations[place] = replace(now, **lacking)


def _compare_history(comparison: Comparison, stored: Path, again: History) -> None:
    if (stored / history_file.FILE).exists():
        recorded = _series_of(history_file.read(stored))
        comparison.add("losses and accuracies", recorded, _series_of(again))
    else:
        comparison.missing.append(history_file.FILE)


def _series_of(history: History) -> Series:
    series: dict[str, dict[int, float]] = {
        "train/loss": dict(enumerate(history.loss_T.tolist(), 1)),
        "train/accuracy": dict(enumerate(history.accuracy_T.tolist(), 1)),
    }
    for evaluation in history.evaluations:
        for name, value in evaluation.metrics.items():
            series.setdefault(name, {})[evaluation.iteration] = value
    return series


def _compare_metrics(
    comparison: Comparison, store: Store, run: Run, again: TrainedRun, dataset: Dataset
) -> None:
    """Compare the metrics that the store has with those that it would be sent now."""
    pruned, warned = PRUNED_AT in run.data.tags, run.data.tags.get(WARNING, "")
    spaces = {} if pruned else separation(again.network, dataset)
    now = RecordedRun(store.client, run.info.run_id, again.config.trainer.log_every)
    sent = _by_name(now.unsent(again.history, last=True, at_end=spaces)[0])
    recorded = {
        key: _by_name(store.client.get_metric_history(run.info.run_id, key))[key]
        for key in run.data.metrics
        if key in sent
    }
    if "metrics of feature spaces" in warned:
        sent = {key: points for key, points in sent.items() if key not in spaces}
    others = (key for key in run.data.metrics if key not in recorded and not key.startswith("time/"))
    comparison.left_out += sorted(others)
    comparison.add("metric points", recorded, sent)


def _by_name(metrics: Iterable[Metric]) -> Series:
    """Return points by name and step; a restored epoch's figures, sent last, replace the last epoch's."""
    series: dict[str, dict[int, float]] = {}
    for metric in sorted(metrics, key=lambda metric: metric.timestamp):
        if not metric.key.startswith("time/"):
            series.setdefault(metric.key, {})[metric.step] = metric.value
    return series


def _compare_weights(comparison: Comparison, stored: Path, again: TrainedRun) -> None:
    if (stored / run_files.WEIGHTS).exists():
        differing = artifacts.differing_weights(stored / run_files.WEIGHTS, again.network)
        comparison.differences += [f"weights {name}, by up to {most:.2g}" for name, most in differing.items()]
        comparison.compared.append("the weights")
    elif again.config.tracking.weights == "all":
        comparison.missing.append(run_files.WEIGHTS)


def _compare_predictions(comparison: Comparison, stored: Path, again: TrainedRun, dataset: Dataset) -> None:
    file = stored / predictions_file.FILE
    if not file.exists():  # runs without pictures, or of an earlier version, have none
        return
    recorded, now = predictions_file.read(file), predict(again, dataset)
    for split in sorted({*recorded, *now}):
        before, after = recorded.get(split), now.get(split)
        if before is None or after is None or before.probabilities_NxC.shape != after.probabilities_NxC.shape:
            comparison.differences.append(f"predictions on the {split} set: other instances")
            continue
        gaps_N = np.abs(before.probabilities_NxC - after.probabilities_NxC).max(axis=1)
        is_same_N = (gaps_N == 0) & (before.prediction_N == after.prediction_N)
        if not (is_same_N & (before.label_N == after.label_N)).all():
            n_differ = np.count_nonzero(~is_same_N)
            said = f"{n_differ:,} predictions on the {split} set, probabilities by up to {gaps_N.max():.2g}"
            comparison.differences.append(said)
    comparison.compared.append(f"{sum(len(of.label_N) for of in now.values()):,} predictions")


def _compare_pictures(
    comparison: Comparison,
    stored: Path,
    again: TrainedRun,
    dataset: Dataset,
    warned: str,
    written: set[str],
) -> None:
    """Compare the numbers of pictures, and tell which pictures there are.

    Args:
        written: the files that the run's worker wrote; earlier versions didn't record them.
    """
    file = stored / run_pictures.EXPLAINED_FILE
    if file.exists():
        recorded = _shares_in(file)
        # Pictures of the winner alone are drawn from its weights in the store, which lie without padding.
        network = again.network if again.config.tracking.pictures == "all" else copy.deepcopy(again.network)
        now = run_pictures.explained_variance(network, dataset).items()
        series = {name: dict(enumerate(ratios)) for name, ratios in now if name in recorded or not warned}
        comparison.add("shares of variance", recorded, series)
    found = {path.relative_to(stored).as_posix() for path in stored.rglob("*")}
    wanted = run_pictures.files(again.network, dataset)
    if not written and again.config.tracking.pictures == "all" and not warned:
        written = wanted - {run_pictures.CONFUSION, run_pictures.MISTAKES}
    comparison.missing += sorted((written & {*wanted, predictions_file.FILE}) - found)
    comparison.left_out += sorted(wanted & found - {run_pictures.EXPLAINED_FILE})


def _shares_in(file: Path) -> Series:
    try:
        shares = json.loads(file.read_bytes()).items()
        return {name: dict(enumerate(map(float, of_plane))) for name, of_plane in shares}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused([f"{run_pictures.EXPLAINED_FILE}: can't be read ({type(error).__name__})"]) from error


def _machine(canaries: Sequence[str], config: RunConfig, comparison: Comparison) -> str:
    here = canary(device_of(config.trainer), config.trainer.precision)
    if others := [recorded for recorded in canaries if recorded != here]:
        return (
            f"trained on a machine that computes differently: canary {', '.join(others)}, here {here};"
            " the same bits can't be expected"
        )
    if comparison.differences and not canaries:
        return "recorded without a canary: whether that machine computes as this one is not known"
    return ""
