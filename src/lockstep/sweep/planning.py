"""The plan of a command's arrays and workers."""

from collections.abc import Sequence
from functools import cache

from lockstep.config.identity import NUMERICS_VERSION
from lockstep.config.model_config import LogRegConfig, MLPConfig
from lockstep.config.run_request import RunRequest
from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.data.datasets import Dataset
from lockstep.execution.cores import count_workers
from lockstep.execution.plan import ARRAY_BYTES, DEVICE_ARRAY_BYTES, Need, Plan, plan
from lockstep.sweep.names import run_names
from lockstep.terminal import tables
from lockstep.terminal.console import console
from lockstep.training import network_check
from lockstep.training.device import device_of, gemm_flops


def plan_of(configs: Sequence[RunConfig], n_jobs: int) -> Plan:
    """Return the plan for runs, and load their data."""
    loaded = [datasets.load(config.data) for config in configs]
    needs = [need_of(config, dataset) for config, dataset in zip(configs, loaded, strict=True)]
    descriptions, array_bytes = [dataset.description for dataset in loaded], ARRAY_BYTES
    if not are_on_cpu(configs):
        array_bytes = DEVICE_ARRAY_BYTES
    return plan(configs, descriptions, workers_for(configs, n_jobs), needs, array_bytes)


def need_of(config: RunConfig, dataset: Dataset) -> Need | None:
    """Return what a run needs whose network is a module; None for others.

    Raises:
        Refused: if the module can't be trained, see `network_check`.
    """
    if (found := network_check.measure(config, dataset)) is None:
        return None
    flops = _flops()
    return Need(found.n_parameters, found.step_seconds * flops, found.row_seconds * flops)


_flops = cache(gemm_flops)


def workers_for(configs: Sequence[RunConfig], n_jobs: int) -> int:
    """Return how many workers may train the runs: one on any device but the CPU."""
    return count_workers(n_jobs) if are_on_cpu(configs) else 1


def are_on_cpu(configs: Sequence[RunConfig]) -> bool:
    """Tell whether all runs train on the CPU."""
    return all(device_of(trainer).type == "cpu" for trainer in {config.trainer for config in configs})


def show_plan(requests: Sequence[RunRequest], n_jobs: int) -> None:
    """Print the plan of these runs with its estimated time; train nothing."""
    runs = list(dict(zip(identities(requests), requests, strict=True)).values())
    planned = plan_of([request.config for request in runs], n_jobs)
    flops = _flops()
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


def _may_have_threads(config: RunConfig) -> bool:
    return config.trainer.threads == 1 and not isinstance(config.model, LogRegConfig | MLPConfig)


def identities(requests: Sequence[RunRequest], version: int | None = None) -> list[tuple[str, str]]:
    """Return each run's experiment and run key: equal ones are one run, which is trained once.

    Args:
        version: of the numerics, None for this one.
    """
    configs = [request.config for request in requests]
    digests = [datasets.load(config.data).description.digest for config in configs]
    return [
        (config.tracking.experiment, config.run_keys(digest)[version or NUMERICS_VERSION])
        for config, digest in zip(configs, digests, strict=True)
    ]
