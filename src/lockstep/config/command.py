"""A composed command line: its runs or its search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from omegaconf import DictConfig

from lockstep.config.composer import Composer
from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.overrides import Setting
from lockstep.config.run_request import RunRequest, Typed
from lockstep.config.search_config import SearchConfig


@dataclass(frozen=True)
class SearchRequest:
    """A search that was asked for.

    Attributes:
        config: its settings.
        settings: the command's overrides, some of which are searched.
        groups: the names of config groups.
        composer: composes its trials.
    """

    config: SearchConfig
    settings: tuple[Setting, ...]
    groups: tuple[str, ...]
    composer: Composer


@dataclass(frozen=True)
class Command:
    """A composed command line.

    Attributes:
        requests: one run, or a sweep's; none of a search.
        overrides: as typed, without Hydra's own.
        launcher: one worker where the launcher isn't Lockstep's.
        max_batch_size: how many runs of a sweep train at a time, or None for all.
        search: None for a run or a grid.
        is_multirun: whether it is a sweep or search, be it by a preset's `hydra.mode`.
        for_hydra: each argument as Hydra takes it.
        master: what Hydra composes first: the run's config, or what a sweep's runs share.
        typed: None where no shell was used.
    """

    requests: tuple[RunRequest, ...]
    overrides: tuple[str, ...]
    launcher: LauncherConfig
    max_batch_size: int | None
    search: SearchRequest | None
    composer: Composer
    is_multirun: bool
    for_hydra: Mapping[str, str]
    master: DictConfig
    typed: Typed | None = None

    def request(self, overrides: Sequence[str]) -> RunRequest:
        """Return the run with these overrides; a sweeper of the user's may ask for runs of its own.

        Raises:
            Refused: if it can't be composed.
        """
        return self._by_overrides.get(tuple(overrides)) or self.composer.request(overrides)

    @cached_property
    def _by_overrides(self) -> dict[tuple[str, ...], RunRequest]:
        return {request.overrides: request for request in self.requests}
