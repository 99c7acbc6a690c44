"""Hydra's loader, for the configs of one command."""

from collections.abc import Collection, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict, read_write

from lockstep.config._hydra_compat import set_override_dirname
from lockstep.config.errors import Refused
from lockstep.config.targets import check


class Loader:
    """Composes by Hydra, with a command's settings of Hydra itself.

    Attributes:
        hydra: Hydra's own loader.
        groups: the options of each config group.

    Args:
        config_name: the primary config.
        for_hydra: the command's overrides of `hydra.*`.
        typed: the keys among them whose values were typed, see typed_keys.
    """

    def __init__(
        self, hydra: ConfigLoader, config_name: str, for_hydra: Sequence[str], typed: Collection[str]
    ) -> None:
        self.hydra, self._config_name = hydra, config_name
        self._for_hydra, self._typed = list(for_hydra), typed
        groups = self._options("", ObjectType.GROUP)
        self.groups = {group: self._options(group, ObjectType.CONFIG) for group in groups if group != "hydra"}

    def _options(self, group: str, kind: ObjectType) -> list[str]:
        return self.hydra.get_group_options(group, kind, self._config_name, self._for_hydra)

    def master(self, overrides: Sequence[str]) -> DictConfig:
        """Return what Hydra composes first: it leaves out overrides that are swept.

        Raises:
            HydraException: if it can't be composed.
        """
        return self._load([*self._for_hydra, *overrides], RunMode.MULTIRUN)

    def job(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config of a run of a sweep with its `hydra` node.

        Raises:
            HydraException: if it can't be composed.
        """
        composed = self._load([*self._for_hydra, *overrides], RunMode.RUN)
        set_override_dirname(composed, OverridesParser.create().parse_overrides(list(overrides)))
        return composed

    def run(self, overrides: Sequence[str], master: DictConfig | None, swept: Collection[str]) -> DictConfig:
        """Return the config of a run without its `hydra` node, most of what would be copied for each run.

        Args:
            master: what a sweep's runs share, None without a sweep.
            swept: the keys that are swept.

        Raises:
            HydraException: if it can't be composed.
            Refused: if it chooses a launcher or sweeper of its own, where Hydra 1.3 would ignore the choice.
        """
        composed = self._load([*self._for_hydra, *overrides], RunMode.RUN)
        for kind in ("sweeper", "launcher"):
            chosen, settings = _plugin(composed, kind)
            shared, shared_settings = _plugin(master or composed, kind)
            if chosen != shared or settings != shared_settings:
                what = f"hydra/{kind}={chosen}" if chosen != shared else f"hydra.{kind}"
                one = " ".join(text for text in overrides if text.partition("=")[0] in swept)
                why = f"sets {what}, which is the same for all runs of a sweep"
                raise Refused([f"{one}: {why}; give it by itself, not as one of several values"])
        with flag_override(composed, ["struct", "readonly"], False):
            del composed["hydra"]
        return composed

    def _load(self, overrides: list[str], mode: RunMode) -> DictConfig:
        try:
            composed = self.hydra.load_configuration(
                self._config_name, overrides, mode, from_shell=False, validate_sweep_overrides=False
            )
        except HydraException:
            raise
        except Exception as error:  # a user's config can make Hydra raise anything
            message = " ".join(str(error).split())
            raise ConfigCompositionException(f"{type(error).__name__}: {message}") from error
        check(composed, self._typed)
        noted: Any = OmegaConf.to_container(composed.hydra.overrides)
        for kind, texts in noted.items():
            if added := [text for text in texts if text not in overrides]:
                raise Refused([f"hydra.overrides.{kind}={added}: Hydra itself sets it; leave it out"])
        return composed


def _plugin(composed: DictConfig, kind: str) -> tuple[str | None, Any]:
    """Return which launcher or sweeper a config has, and its settings."""
    settings = OmegaConf.to_container(OmegaConf.masked_copy(composed.hydra, kind))
    return composed.hydra.runtime.choices.get(f"hydra/{kind}"), settings


def numbered(job: DictConfig, number: int) -> DictConfig:
    """Return a job's config with its number in the sweep."""
    with read_write(job.hydra), open_dict(job.hydra):
        job.hydra.job.id, job.hydra.job.num = str(number), number
    return job
