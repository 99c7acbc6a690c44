"""The launcher's settings, `hydra.launcher.*`."""

from dataclasses import dataclass


@dataclass
class LauncherConfig:
    """How a sweep's runs are carried out; nothing here changes a run's numbers.

    It is not frozen, as OmegaConf would then let nobody set a value.

    Attributes:
        n_jobs: worker processes, -1 for one per core.
        exact: stack no runs in batched kernels; for machines where `python -m lockstep doctor` says that a
            run's numbers depend on its neighbours otherwise.
        fail_fast: start no more runs after one has failed.
        cluster: address of a Dask scheduler, or its scheduler file: its workers train, not this machine's.
        mixed: let workers train that give other bits than this machine.
    """

    n_jobs: int = -1
    exact: bool = False
    fail_fast: bool = False
    cluster: str | None = None
    mixed: bool = False
