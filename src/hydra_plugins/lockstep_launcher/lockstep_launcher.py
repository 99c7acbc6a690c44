"""`hydra/launcher=lockstep`: all jobs of a sweep go to a Lockstep session at once.

Hydra imports this module at every start, so torch and mlflow are loaded only when jobs are launched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import (
    JobReturn,
    JobRuntime,
    JobStatus,
    configure_log,
    filter_overrides,
    run_job,
    setup_globals,
)
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lockstep.config.launcher_config import LauncherConfig

if TYPE_CHECKING:
    from lockstep.config.command import Command


@dataclass
class LockstepLauncherConf(LauncherConfig):
    """The launcher's settings, as Hydra takes them."""

    _target_: str = "hydra_plugins.lockstep_launcher.lockstep_launcher.LockstepLauncher"


ConfigStore.instance().store(
    group="hydra/launcher", name="lockstep", node=LockstepLauncherConf, provider="lockstep_launcher"
)


class LockstepLauncher(Launcher):
    """Has a session train all jobs, then gives Hydra each job's folder and result.

    Jobs of a task function that isn't run.py's run one after the other.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = LauncherConfig(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    @property
    def trains_together(self) -> bool:
        """Whether the jobs are trained by a session, which is given all of them at once."""
        from lockstep.cli.command import of_task

        return of_task(self.task_function) is not None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train one job for each list of overrides; results in the same order."""
        from lockstep.cli.command import of_task

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        command = of_task(self.task_function)
        if command is None:
            load = partial(self.hydra_context.config_loader.load_sweep_config, self.config)
            composed = [
                self._prepared(load(list(overrides)), overrides, index)
                for index, overrides in enumerate(job_overrides, initial_job_idx)
            ]
            return [self._run_job(config, self.task_function) for config in composed]
        return self._launch(command, job_overrides, initial_job_idx)

    def _launch(
        self, command: "Command", job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from lockstep.config.composer import Composer
        from lockstep.config.job_folder import JobFolders
        from lockstep.execution.collector import uncollected
        from lockstep.results.run_result import RunFailed
        from lockstep.sweep.session import carry_out

        loader = self.hydra_context.config_loader
        composer = Composer(partial(loader.load_sweep_config, self.config), loader.list_groups(""))
        folders, configs = None, list[DictConfig]()
        with uncollected():
            if JobFolders.suit(composer, self.config, job_overrides):
                folders = JobFolders(composer, self.config, job_overrides, initial_job_idx)
            else:
                configs = [
                    self._prepared(composer.compose(overrides), overrides, index)
                    for index, overrides in enumerate(job_overrides, initial_job_idx)
                ]
            requests = [command.request(filter_overrides(overrides)) for overrides in job_overrides]
        if folders is not None:
            folders.write()
        standings = carry_out(
            requests,
            command.overrides,
            self.settings,
            Path(str(self.config.hydra.sweep.dir)),
            command.max_batch_size,
            command.typed,
        )
        values = [partial(run.value, standings.ranking.metric) for run in standings.runs]
        try:
            if folders is not None:
                folders.wait()
                return [
                    _returned(list(each), value) for each, value in zip(job_overrides, values, strict=True)
                ]
            return [
                self._run_job(config, lambda _, value=value: value())
                for config, value in zip(configs, values, strict=True)
            ]
        except OSError as error:
            raise RunFailed(f"{error}: Hydra's files are missing; all runs are recorded") from error

    def _prepared(self, composed: DictConfig, overrides: Sequence[str], index: int) -> DictConfig:
        """Return a job's config with its number, its folder made: a folder that can't be made must not cost a
        finished sweep its end."""
        from lockstep.config._hydra_compat import set_override_dirname
        from lockstep.config.errors import Refused

        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = str(index), index
        composed.hydra.overrides.task = list(overrides)
        set_override_dirname(composed, OverridesParser.create().parse_overrides(list(overrides)))
        if "${hydra:" in OmegaConf.to_yaml(composed.hydra.sweep):
            HydraConfig.instance().set_config(composed)  # 4 ms
        try:
            path = Path(str(composed.hydra.sweep.dir), str(composed.hydra.sweep.subdir))
            path.mkdir(parents=True, exist_ok=True)
        except (OSError, OmegaConfBaseException) as error:
            raise Refused([f"hydra.sweep.dir, hydra.sweep.subdir: {str(error).splitlines()[0]}"]) from error
        return composed

    def _run_job(self, composed: DictConfig, task_function: Callable[[DictConfig], Any]) -> JobReturn:
        """Make the job's folder with its `.hydra/`, and its result, as Hydra's own launchers do."""
        returned = run_job(
            hydra_context=self.hydra_context,
            task_function=task_function,
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return returned


def _returned(overrides: list[str], value: Callable[[], float | None]) -> JobReturn:
    """Return a job's result as Hydra's `run_job` does, without copies of its config."""
    returned = JobReturn(overrides, working_dir=str(Path.cwd()), task_name=JobRuntime.instance().get("name"))
    try:
        returned.return_value = value()
        returned.status = JobStatus.COMPLETED
    except Exception as error:
        returned.return_value = error
        returned.status = JobStatus.FAILED
    return returned
