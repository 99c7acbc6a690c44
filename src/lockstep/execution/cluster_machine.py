"""A machine of a cluster, and what decides whether it computes as another one. Light: no Dask, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        cache: the folder that keeps data sets; workers with the same one share it.
        lockstep, torch: versions.
        canaries: see lockstep.training.canary, by precision.
    """

    host: str
    cache: str
    lockstep: str
    torch: str
    canaries: Mapping[str, str]

    @property
    def canary(self) -> str:
        """All canaries, the first digits of each."""
        return " ".join(canary[:8] for canary in self.canaries.values())


def canaries(precisions: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return torch's version and the CPU's canary for each precision; this loads torch."""
    import torch

    from lockstep.training.canary import canary

    found = {precision: canary(torch.device("cpu"), precision) for precision in precisions}
    return str(torch.__version__), found  # plain: who receives torch's own type of it loads torch
