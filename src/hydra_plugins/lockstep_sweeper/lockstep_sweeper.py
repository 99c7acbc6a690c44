"""`hydra/sweeper=lockstep`: all combinations of the values given, in the order of Hydra's basic sweeper.

The basic sweeper composes every run to see that it can be, 50 ms each, though run.py's command has done so;
and it leaves out the batches after one in which a run failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        params: a sweep as key: values, which are text in Hydra's grammar or a list; what is typed on the
            command line comes on top.
    """

    _target_: str = "hydra_plugins.lockstep_sweeper.lockstep_sweeper.LockstepSweeper"
    max_batch_size: int | None = None
    params: dict[str, Any] | None = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="lockstep", node=LockstepSweeperConf, provider="lockstep_sweeper"
)


class LockstepSweeper(Sweeper):
    """Hands all combinations to the launcher: at once to Lockstep's, in batches to any other."""

    def __init__(self, max_batch_size: int | None = None, params: dict[str, Any] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch all runs, then raise the error of the first that failed."""
        runs = self._runs(arguments)
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

    def _runs(self, arguments: list[str]) -> list[tuple[str, ...]]:
        """Return the overrides of each run, those that run.py's command has checked if it is the caller."""
        from lockstep.cli.command import of_task
        from lockstep.config.overrides import grid, with_own_sweep

        if (command := of_task(self.task_function)) is not None:
            return [request.overrides for request in command.requests]
        loader = self.hydra_context.config_loader
        typed = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
        own: Any = OmegaConf.to_container(OmegaConf.create(self.params), resolve=True)
        return grid(with_own_sweep(own, typed, loader))
