"""`hydra/launcher=lockstep`: all jobs of a sweep go to Lockstep at once.

Thin: what a sweep is, lockstep.sweep knows. Hydra imports this module at every start, so torch and mlflow
are loaded only when jobs are launched.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException


@dataclass
class LockstepLauncherConf:
    """The launcher's settings."""

    _target_: str = "hydra_plugins.lockstep_launcher.lockstep_launcher.LockstepLauncher"


ConfigStore.instance().store(
    group="hydra/launcher", name="lockstep", node=LockstepLauncherConf, provider="lockstep_launcher"
)


class LockstepLauncher(Launcher):
    """Composes and validates all jobs, trains them, then gives Hydra each job's folder and result."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train one job for each list of overrides; results in the same order."""
        from lockstep.config import RunConfig
        from lockstep.sweep import Job, carry_out

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        composed = [self._compose(initial_job_idx + i, list(o)) for i, o in enumerate(job_overrides)]
        jobs = [
            Job(RunConfig.of(_without_hydra(config)), tuple(filter_overrides(overrides)))
            for config, overrides in zip(composed, job_overrides, strict=True)
        ]
        outcomes = carry_out(jobs, sweep=list(self.config.hydra.overrides.task))
        return [
            self._job_return(config, outcome.result)
            for config, outcome in zip(composed, outcomes, strict=True)
        ]

    def _compose(self, index: int, overrides: list[str]) -> DictConfig:
        from lockstep.config import Refused

        composed = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(composed):
            composed.hydra.job.id = index
            composed.hydra.job.num = index
        # Made before anything trains: a folder that can't be had must not cost a finished sweep its end.
        HydraConfig.instance().set_config(composed)
        try:
            Path(str(composed.hydra.sweep.dir), str(composed.hydra.sweep.subdir)).mkdir(
                parents=True, exist_ok=True
            )
        except (OSError, OmegaConfBaseException) as error:
            raise Refused([f"hydra.sweep.dir, hydra.sweep.subdir: {str(error).splitlines()[0]}"]) from error
        return composed

    def _job_return(self, composed: DictConfig, result: Callable[[], Any]) -> JobReturn:
        """The job's folder with its `.hydra/`, and what came of it, as Hydra's own launchers leave them."""
        returned = run_job(
            hydra_context=self.hydra_context,
            task_function=lambda _: result(),
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return returned


def _without_hydra(composed: DictConfig) -> DictConfig:
    own = copy.copy(composed)
    with open_dict(own):
        del own["hydra"]
    return own
