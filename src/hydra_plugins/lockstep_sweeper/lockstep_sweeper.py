"""`hydra/sweeper=lockstep`: all combinations of the values given, in the order of Hydra's basic sweeper.

The basic sweeper composes every run to see that it can be, 50 ms each, though run.py's command has done so;
and it leaves out the batches after one in which a run failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class LockstepSweeperConf:
    """The basic sweeper's settings.

    Attributes:
        max_batch_size: how many runs train at a time, None for all.
        params: a sweep as key: values; what is typed on the command line comes on top.
    """

    _target_: str = "hydra_plugins.lockstep_sweeper.lockstep_sweeper.LockstepSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(
    group="hydra/sweeper", name="lockstep", node=LockstepSweeperConf, provider="lockstep_sweeper"
)


class LockstepSweeper(Sweeper):
    """Hands all combinations to the launcher: at once to Lockstep's, in batches to any other."""

    def __init__(self, max_batch_size: int | None = None, params: dict[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch all runs, then raise the error of the first that failed."""
        from lockstep.config.overrides import grid

        params = [f"{key}={value}" for key, value in self.params.items()]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        runs = grid(parser.parse_overrides([*params, *arguments]))
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        in_batches = not getattr(self.launcher, "trains_together", False)
        size = (self.max_batch_size if in_batches else None) or len(runs)
        returns: list[Sequence[JobReturn]] = []
        for start in range(0, len(runs), size):
            batch = [list(overrides) for overrides in runs[start : start + size]]
            returns.append(self.launcher.launch(batch, initial_job_idx=start))
        for returned in (job for batch in returns for job in batch):
            _ = returned.return_value  # raises what the job raised
        return returns
