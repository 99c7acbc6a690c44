"""`python -m lockstep doctor`: test whether a run's bits depend on its neighbours on this machine."""

import platform
from importlib import metadata

from loky import cpu_count
from rich.table import Table

from lockstep.execution.cluster import Cluster
from lockstep.execution.cluster_machine import Machine
from lockstep.terminal.console import console
from lockstep.training.bit_check import NETWORKS, PRECISIONS, keeps_bits
from lockstep.training.device import cpu_capability


def examine_cluster(address: str) -> bool:
    """Print the workers of a cluster; return whether all compute as this machine does, and there are some.

    Raises:
        Refused: if there is no such scheduler, or Dask is not installed.
    """
    found = Cluster(address, mixed=False, precisions=list(PRECISIONS))
    try:
        found.wait_for_answers()
        workers = sorted(found.members.all.values(), key=lambda member: (member.name, member.address))
    finally:
        found.close()
    table = Table("worker", "tasks", "Lockstep", "torch", "canary", box=None, header_style="bold")
    for member in workers:
        table.add_row(member.name, str(member.n_slots), *_told(member.machine))
    table.add_row("this machine", "", *_told(found.here))
    console.print(table)
    console.print()
    differing = [member for member in workers if member.reason]
    for member in differing:
        console.print(f"{member.name} ({member.address}): {member.reason}", soft_wrap=True)
    if not workers:
        console.print("The cluster has no workers.")
    elif not differing:
        console.print("All workers compute as this machine does.")
    return bool(workers) and not differing


def _told(machine: Machine | None) -> tuple[str, str, str]:
    return ("", "", "") if machine is None else (machine.lockstep, machine.torch, machine.canary)


def examine() -> bool:
    """Test all networks and precisions, print the results, and return whether float32 keeps every bit."""
    table = Table("network", *PRECISIONS, box=None, pad_edge=False, header_style="bold")
    kept = {}
    for name, network in NETWORKS.items():
        for precision in PRECISIONS:
            kept[name, precision] = keeps_bits(network, precision, exact=False)
        table.add_row(name, *("yes" if kept[name, precision] else "no" for precision in PRECISIONS))
    exact = all(keeps_bits(network, "float32", exact=True) for network in NETWORKS.values())
    console.print(
        f"torch {metadata.version('torch')}, {cpu_count()} cores, {platform.machine()}, {cpu_capability()}"
    )
    console.print("Does a run have bit for bit the numbers it has alone, on one thread and on several?\n")
    console.print(table)
    console.print()
    if all(kept[name, "float32"] for name in NETWORKS):
        console.print("Sweeps in float32 keep every bit here.")
        return True
    if exact:
        console.print("Not every sweep does: give hydra.launcher.exact=true, which keeps every bit here.")
        return False
    console.print(
        "Not even with hydra.launcher.exact=true: a kernel's result depends on the number of threads here;"
        " give hydra.launcher.n_jobs=1 as well."
    )
    return False
