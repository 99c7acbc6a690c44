"""The workers that train a command's runs: of this machine, or of a cluster."""

import logging
from collections.abc import Sequence
from typing import Any

from lockstep.config.command import Command
from lockstep.config.errors import Refused
from lockstep.terminal.console import console, stage

log = logging.getLogger("lockstep")


def start_workers(command: Command, configs: Sequence[Any]) -> None:
    """Start the server that forks workers, while this process loads its imports.

    Where a run may train on a GPU, this process trains it.
    """
    from lockstep.execution import pool

    if any(config.trainer.device != "cpu" for config in configs):
        pool.shut_down()
    elif any(config.dry_run for config in configs):
        pool.start(["lockstep.training.device"])
    elif command.launcher.cluster is not None:
        pool.start(["lockstep.training.canary"])
    else:
        draws = any(config.tracking.pictures == "all" for config in configs)
        pool.start((*pool.TRAINING, *pool.DRAWING) if draws else pool.TRAINING)


def connect(command: Command, configs: Sequence[Any]) -> None:
    """Connect to the cluster that a command names, if it names one; its workers load their imports meanwhile.

    Raises:
        Refused: if there is none, or a run asks for another device than the CPU.
    """
    from lockstep.execution import cluster

    launcher = command.launcher
    if launcher.cluster is None:
        return
    if other := next((config for config in configs if config.trainer.device != "cpu"), None):
        raise Refused(
            [f"trainer.device={other.trainer.device}: the workers of a cluster train on CPUs; leave it out"]
        )
    with stage("connecting to the cluster"):
        precisions = sorted({config.trainer.precision for config in configs})
        cluster.connect(launcher.cluster, launcher.mixed, precisions)


def check_cluster() -> None:
    """Check the cluster that this command is connected to, if it is, and say what it is.

    Raises:
        Refused: if no worker there may train.
    """
    from lockstep.execution import cluster

    joined = cluster.connected()
    if joined is None:
        return
    with stage("asking the cluster's workers"):
        joined.wait_for_answers()
    joined.check()
    if joined.is_open_to_others:
        log.warning(
            "hydra.launcher.cluster=%s: without TLS, whoever reaches this port can run code on all of the"
            " cluster's machines; docs/cluster.md says how to close it",
            joined.address,
        )
    n = joined.members.n_slots
    shown = f"; Dask's dashboard: {joined.dashboard}" if joined.dashboard else ""
    console.print(f"Cluster {joined.address}: {n} worker{'s' * (n != 1)}{shown}", soft_wrap=True)


def has_workers(command: Command, configs: Sequence[Any]) -> bool:
    """Tell whether a call has more runs than one, and cores for them."""
    from lockstep.execution.cores import count_workers

    n_runs = len(configs) if command.search is None else command.search.config.n_trials
    return min(n_runs, count_workers(command.launcher.n_jobs)) > 1
