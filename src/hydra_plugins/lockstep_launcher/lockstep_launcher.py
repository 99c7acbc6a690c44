"""`hydra/launcher=lockstep`: all jobs of a sweep go to Lockstep at once.

Thin: what a sweep is, lockstep.sweep knows. Hydra imports this module at every start, so torch and mlflow
are loaded only when jobs are launched.
"""

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
    """The launcher's settings.

    Attributes:
        n_jobs: worker processes, counted as joblib does: -1 for one a core.
        exact: stack no runs in batched kernels; for machines where `python -m lockstep doctor` says that a
            run's numbers depend on its neighbours otherwise.
    """

    _target_: str = "hydra_plugins.lockstep_launcher.lockstep_launcher.LockstepLauncher"
    n_jobs: int = -1
    exact: bool = False


ConfigStore.instance().store(
    group="hydra/launcher", name="lockstep", node=LockstepLauncherConf, provider="lockstep_launcher"
)


class LockstepLauncher(Launcher):
    """Composes and validates all jobs, trains them, then gives Hydra each job's folder and result.

    Jobs of a task function that isn't `lockstep.cli.command.in_lockstep` run one after the other.
    """

    def __init__(self, n_jobs: int = -1, exact: bool = False) -> None:
        self.n_jobs, self.exact = n_jobs, exact

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train one job for each list of overrides; results in the same order."""
        from lockstep.config.compose import SweepComposer
        from lockstep.execution.collector import uncollected

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        composer = SweepComposer(self.hydra_context.config_loader, self.config)
        with uncollected():
            composed = [
                self._prepared(composer.compose(list(overrides)), initial_job_idx + index)
                for index, overrides in enumerate(job_overrides)
            ]
        if not getattr(self.task_function, "in_lockstep", False):
            return [self._job_return(config, self.task_function) for config in composed]

        from lockstep.config.job import Job
        from lockstep.config.schema import RunConfig
        from lockstep.sweep.session import carry_out

        jobs = [
            Job(RunConfig.of(config), tuple(filter_overrides(overrides)))
            for config, overrides in zip(composed, job_overrides, strict=True)
        ]
        typed = list(self.config.hydra.overrides.task)
        outcomes = carry_out(jobs, typed, self.n_jobs, self.exact, folder)
        return [
            self._job_return(config, lambda _, outcome=outcome: outcome.result())
            for config, outcome in zip(composed, outcomes, strict=True)
        ]

    def _prepared(self, composed: DictConfig, index: int) -> DictConfig:
        """A job's config with its number, its folder made: a folder that can't be had must not cost a
        finished sweep its end."""
        from lockstep.config.errors import Refused

        with open_dict(composed):
            composed.hydra.job.id = composed.hydra.job.num = index
        HydraConfig.instance().cfg = composed  # its set_config() would copy it, which takes 4 ms
        try:
            Path(str(composed.hydra.sweep.dir), str(composed.hydra.sweep.subdir)).mkdir(
                parents=True, exist_ok=True
            )
        except (OSError, OmegaConfBaseException) as error:
            raise Refused([f"hydra.sweep.dir, hydra.sweep.subdir: {str(error).splitlines()[0]}"]) from error
        return composed

    def _job_return(self, composed: DictConfig, task_function: Callable[[DictConfig], Any]) -> JobReturn:
        """The job's folder with its `.hydra/`, and what came of it, as Hydra's own launchers leave them."""
        returned = run_job(
            hydra_context=self.hydra_context,
            task_function=task_function,
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return returned
