"""`hydra/sweeper=lockstep`: Hydra's basic sweeper, but quick for many jobs and not stopped by one of them.

The basic sweeper composes every job just to see that it can be (50 ms each; `hydra/launcher=lockstep` does so
anyway before anything trains), and leaves out the batches after one in which a job failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf


@dataclass
class LockstepSweeperConf(BasicSweeperConf):
    """The basic sweeper's settings: max_batch_size, params."""

    _target_: str = "hydra_plugins.lockstep_sweeper.lockstep_sweeper.LockstepSweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="lockstep", node=LockstepSweeperConf, provider="lockstep_sweeper"
)


class LockstepSweeper(BasicSweeper):
    """All combinations of the values given, in the order of the basic sweeper."""

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch all jobs, then raise the error of the first that failed."""
        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        returns: list[Sequence[JobReturn]] = []
        for batch in self.split_arguments(overrides, self.max_batch_size):
            returns.append(self.launcher.launch(batch, initial_job_idx=sum(map(len, returns))))
        for returned in (job for batch in returns for job in batch):
            _ = returned.return_value  # raises what the job raised
        return returns
