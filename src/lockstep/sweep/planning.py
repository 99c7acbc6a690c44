"""The plan of a command's arrays and workers."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from lockstep.config.data_config import TableConfig
from lockstep.config.errors import Refused
from lockstep.config.identity import NUMERICS_VERSION
from lockstep.config.model_config import LogRegConfig, MLPConfig
from lockstep.config.run_request import RunRequest
from lockstep.config.schema import RunConfig, TrainerConfig
from lockstep.data import sources
from lockstep.data.array_files import ArrayFiles, Source
from lockstep.execution import aside, cluster
from lockstep.execution.cores import count_workers
from lockstep.execution.plan import ARRAY_BYTES, DEVICE_ARRAY_BYTES, Need, Plan, plan
from lockstep.execution.pool import WorkerDied
from lockstep.sweep.names import run_names
from lockstep.terminal import tables
from lockstep.terminal.console import console
from lockstep.training import network_code
from lockstep.training.device_name import device_name
from lockstep.training.network_code import NetworkCode


def plan_of(configs: Sequence[RunConfig], n_jobs: int) -> Plan:
    """Return the plan for runs, and load their data."""
    loaded = [sources.load(config.data) for config in configs]
    needs = [need_of(config, source) for config, source in zip(configs, loaded, strict=True)]
    descriptions = [source.description for source in loaded]
    array_bytes = ARRAY_BYTES if are_on_cpu(configs) else DEVICE_ARRAY_BYTES
    n_workers = workers_for(configs, n_jobs)
    if cluster.connected() is None:
        return plan(configs, descriptions, n_workers, needs, array_bytes)
    # A cluster's slot trains an array, on as many threads as its runs ask for. Slots that are left over are
    # other machines' cores.
    n_cores = n_workers * max(config.trainer.threads for config in configs)
    return replace(plan(configs, descriptions, n_cores, needs, array_bytes), threads=1)


def need_of(config: RunConfig, source: Source) -> Need | None:
    """Return what a run needs whose network is a module, checked once for equal settings; None for others.

    Raises:
        Refused: if the module can't be trained, see `network_check`.
    """
    if isinstance(config.model, LogRegConfig | MLPConfig):
        return None
    data, trainer = config.data, config.trainer
    stream = (source.description.digest, data.batch_size, data.val_size, data.drop_last)
    key = (config.model.model_dump_json(), *stream, trainer.precision, trainer.threads, config.optim.name)
    if key not in _needs:
        try:
            _needs[key] = aside.call(_need, config, source.files(), network_code.needed_by([config]))
        except WorkerDied as error:
            raise Refused([f"model={config.model.name}: can't be trained: {error}"]) from error
    return _needs[key]


_needs = dict[object, Need]()


def _need(config: RunConfig, files: ArrayFiles, code: Sequence[NetworkCode]) -> Need:
    """Measure what a run needs."""
    from lockstep.data import datasets  # here, because these load torch
    from lockstep.training import network_check

    network_code.add(code)
    found = network_check.measure(config, datasets.mapped(files))
    flops = _flops()
    return Need(found.n_parameters, found.step_seconds * flops, found.row_seconds * flops)


@cache
def _flops() -> float:
    """Return this machine's speed, see `gemm_flops`."""
    from lockstep.training.device import gemm_flops  # here, because it loads torch

    return gemm_flops()


def workers_for(configs: Sequence[RunConfig], n_jobs: int) -> int:
    """Return how many workers may train the runs: a cluster's, or one on any device but the CPU."""
    if (of := cluster.connected()) is not None:
        return of.members.n_slots
    return count_workers(n_jobs) if are_on_cpu(configs) else 1


def are_on_cpu(configs: Sequence[RunConfig]) -> bool:
    """Tell whether all runs train on the CPU."""
    return all(device_of(trainer) == "cpu" for trainer in {config.trainer for config in configs})


def device_of(trainer: TrainerConfig) -> str:
    """Return the device that a run trains on.

    Raises:
        Refused: if it isn't available.
    """
    return "cpu" if trainer.device == "cpu" else aside.call(device_name, trainer)


def show_plan(requests: Sequence[RunRequest], n_jobs: int) -> None:
    """Print the plan of these runs with its estimated time; train nothing."""
    runs = list(dict(zip(identities(requests)[NUMERICS_VERSION], requests, strict=True)).values())
    _show_columns([request.config for request in runs])
    planned = plan_of([request.config for request in runs], n_jobs)
    flops = aside.call(_flops)
    console.print(tables.plan_table(planned, run_names(runs), flops))
    console.print()
    console.print(tables.plan_summary(planned, flops), soft_wrap=True)
    cores = workers_for([request.config for request in runs], n_jobs)
    if cores >= 2 * len(runs) and all(_may_have_threads(request.config) for request in runs):
        console.print(
            f"{cores - len(runs)} cores would be idle: trainer.threads={cores // len(runs)} gives each run"
            " more of them, which pays for large networks, and changes its bits.",
            soft_wrap=True,
        )


def _show_columns(configs: Sequence[RunConfig]) -> None:
    """Print what the columns of the user's tables become, for each table once."""
    settings = (config.data for config in configs if isinstance(config.data, TableConfig))
    for description, drop in dict.fromkeys((sources.load(data).description, data.drop) for data in settings):
        console.print(tables.columns_table(description, drop, console.width))
        console.print()


def _may_have_threads(config: RunConfig) -> bool:
    return config.trainer.threads == 1 and not isinstance(config.model, LogRegConfig | MLPConfig)


def identities(requests: Sequence[RunRequest]) -> dict[int, list[tuple[str, str]]]:
    """Return each run's experiment and run key, by the version of the numerics, this one's first.

    Runs with equal ones are one run, which is trained once.
    """
    configs = [request.config for request in requests]
    keys = [config.run_keys(sources.load(config.data).description.digest) for config in configs]
    return {
        version: [
            (config.tracking.experiment, key[version]) for config, key in zip(configs, keys, strict=True)
        ]
        for version in keys[0]
    }
