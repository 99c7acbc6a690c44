"""`hydra/sweeper=search`: an adaptive search, whose trials train as arrays and leave them early.

Thin: what a search is, lockstep.search knows. Hydra imports this module at every start, so Optuna, torch and
mlflow are loaded only when a search starts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, setup_globals
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class LockstepSearchConf:
    """The search's settings; lockstep.config.schema.SearchConfig says what they mean.

    Attributes:
        params: what is searched, as key: values; what is typed on the command line comes on top.
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
    min_epochs: int = 1
    reduction_factor: int = 4
    confirm_seeds: int = 0
    confirm_best: int = 3
    params: dict[str, str] | None = None


ConfigStore.instance().store(
    group="hydra/sweeper", name="search", node=LockstepSearchConf, provider="lockstep_search"
)


class LockstepSearch(Sweeper):
    """Asks for trials, trains them with Lockstep's own launcher's settings, tells what came of them."""

    def __init__(self, params: dict[str, str] | None = None, **settings: Any) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> float | None:
        """Search, and leave what was found in `optimization_results.yaml`; returns the winner's metric.

        Raises:
            RunFailed: if a trial failed; the others count.
        """
        from lockstep.config.compose import SweepComposer
        from lockstep.config.schema import SearchConfig
        from lockstep.search.session import carry_out

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        loader = self.hydra_context.config_loader
        params = [f"{key}={value}" for key, value in self.params.items()]
        parser = OverridesParser.create(config_loader=loader)
        overrides = parser.parse_overrides([*params, *arguments])
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        groups = [group for group in loader.list_groups("") if group != "hydra"]
        found = carry_out(
            SearchConfig.of(self.config.hydra.sweeper),
            overrides,
            groups,
            SweepComposer(loader, self.config, with_hydra=False).compose,
            list(self.config.hydra.overrides.task),
            self.launcher.n_jobs,
            self.launcher.exact,
            folder,
        )
        # What Hydra's sweepers that optimize leave, by the same name.
        best = {o.get_key_element(): o.value() for o in parser.parse_overrides(list(found.overrides))}
        results = {"name": "optuna", "best_params": best, "best_value": found.value}
        OmegaConf.save(OmegaConf.create(results), folder / "optimization_results.yaml")
        found.raise_failures()
        return found.value
