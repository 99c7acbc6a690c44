"""`hydra/sweeper=search`: an adaptive search, whose trials train as arrays and leave them early.

Hydra imports this module at every start, so Optuna, torch and mlflow are loaded only when a search starts.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import configure_log, setup_globals
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class LockstepSearchConf:
    """The search's settings; lockstep.config.search_config.SearchConfig says what they mean.

    Attributes:
        params: what is searched, as key: values, which are text in Hydra's grammar or a list; what is typed
            on the command line comes on top.
    """

    _target_: str = "hydra_plugins.lockstep_search.lockstep_search.LockstepSearch"
    n_trials: int = 64
    timeout: float | None = None
    sampler: str = "tpe"
    metric: str = "val/accuracy"
    direction: str | None = None
    seed: int = 0
    array_size: int = 8
    pruner: str = "halving"
    min_epochs: float | None = None
    reduction_factor: int = 3
    finalists: int = 3
    extrapolate: float | None = 0.5
    confirm_seeds: int = 0
    confirm_best: int = 3
    params: dict[str, Any] | None = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="search", node=LockstepSearchConf, provider="lockstep_search"
)


class LockstepSearch(Sweeper):
    """Has a session carry out the search that run.py's command composed, and leaves Hydra its results."""

    def __init__(self, params: dict[str, Any] | None = None, **settings: Any) -> None:
        pass  # the command has read and checked them

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.task_function, self.config = task_function, config

    def sweep(self, arguments: list[str]) -> float | None:
        """Search, and leave what was found in `optimization_results.yaml`; returns the winner's metric.

        Raises:
            RunFailed: if a trial failed; the others count.
        """
        from lockstep.cli.command import of_task
        from lockstep.search.session import carry_out

        command = of_task(self.task_function)
        if command is None or command.search is None:
            raise HydraException("hydra/sweeper=search: searches with run.py's command only")
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        found = carry_out(command, folder)
        # What Hydra's sweepers that optimize leave, by the same name.
        parsed = OverridesParser.create().parse_overrides(list(found.overrides))
        best = {override.get_key_element(): override.value() for override in parsed}
        results = {"name": "optuna", "best_params": best, "best_value": found.value}
        OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")
        found.raise_failures()
        return found.value
