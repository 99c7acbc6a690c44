"""A command line → validated configs of all its runs, before Hydra starts any of them.

Hydra stops at the first name it doesn't know, after it has begun to write. Here all runs of a command are
composed first, once each, and every error of the command is listed at once.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, flag_override
from omegaconf.errors import OmegaConfBaseException

from lockstep.config._hydra_compat import VERSION_BASE
from lockstep.config.composer import Composer, message_of
from lockstep.config.errors import Refused, nearest
from lockstep.config.overrides import Setting, as_typed, grid
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
        n_jobs: workers, -1 for one per core; 1 where the launcher isn't Lockstep's.
        exact: see TrainingArray.
        max_batch_size: how many runs of a sweep train at a time, or None for all.
        search: None for a run or a grid.
        typed: None where no shell was used.
    """

    requests: tuple[RunRequest, ...]
    overrides: tuple[str, ...]
    n_jobs: int
    exact: bool
    max_batch_size: int | None
    search: SearchRequest | None
    composer: Composer
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


def compose(
    conf_dir: Path,
    arguments: Sequence[str],
    multirun: bool = False,
    config_name: str = "config",
    config_dir: Path | None = None,
) -> Command:
    """Compose and validate every run of a command.

    Args:
        conf_dir: the folder of the primary config.
        arguments: Hydra overrides as typed.
        multirun: whether `-m` was given; `hydra.mode=MULTIRUN` counts as well.
        config_name: the primary config.
        config_dir: a folder of the user's with more options, as `--config-dir` gives it.

    Raises:
        Refused: listing every unknown group, option and key and every bad value of every run.
    """
    try:
        with initialize_config_dir(str(conf_dir), **VERSION_BASE):
            return _CommandLine(config_name, arguments, multirun, config_dir).command()
    except HydraException as error:
        raise Refused([message_of(error)]) from error


class _CommandLine:
    """A command line, parsed by Hydra, and the problems found in it so far."""

    def __init__(
        self, config_name: str, arguments: Sequence[str], multirun: bool, config_dir: Path | None
    ) -> None:
        self._loader, self._config_name = GlobalHydra.instance().config_loader(), config_name
        self._parser = OverridesParser.create(self._loader)
        overrides = self._parser.parse_overrides(list(arguments))
        self._for_hydra = [as_typed(o) for o in overrides if o.is_hydra_override()]
        if config_dir is not None:
            self._for_hydra.insert(0, _search_path(config_dir, overrides))  # the first one counts
        groups = self._options("", ObjectType.GROUP)
        self._groups = {group: self._options(group) for group in groups if group != "hydra"}
        self._typed = [override for override in overrides if not override.is_hydra_override()]
        # A preset may choose for Hydra, too.
        chosen = [as_typed(o) for o in self._typed if self._is_choice(o) and not o.is_sweep_override()]
        self._hydra = self._load([*self._for_hydra, *chosen]).hydra
        self._is_multirun = multirun or self._hydra.mode == RunMode.MULTIRUN
        self._problems = _unusable_folder(self._hydra, "sweep" if self._is_multirun else "run")

    def command(self) -> Command:
        """Return the command, or raise Refused with all problems."""
        known = self._known_options(self._all_overrides())
        launcher, is_ours = self._hydra.launcher, self._is_plugin("launcher", "lockstep_launcher")
        n_jobs = launcher.n_jobs if is_ours else 1
        if n_jobs == 0:
            self._problems.append("hydra.launcher.n_jobs=0: needs at least one worker; -1 for one per core")
        composer = Composer(self._load_run, self._groups)
        requests: list[RunRequest] = []
        search = None
        if self._is_multirun and self._is_plugin("sweeper", "lockstep_search"):
            if not is_ours:
                self._problems.append("hydra/sweeper=search: needs hydra/launcher=lockstep")
            search = self._search(known, composer)
        else:
            requests = self._requests(known, composer)
        if self._problems:
            raise Refused(self._problems)
        return Command(
            tuple(requests),
            tuple(map(as_typed, self._typed)),
            n_jobs,
            is_ours and launcher.exact,
            self._hydra.sweeper.get("max_batch_size"),
            search,
            composer,
        )

    def _requests(self, overrides: list[Override], composer: Composer) -> list[RunRequest]:
        runs = grid(overrides) if self._is_multirun else [tuple(map(as_typed, overrides))]
        requests = []
        for run in runs:
            try:
                requests.append(composer.request(run))
            except Refused as refused:
                self._problems += refused.problems
        return requests

    def _search(self, overrides: list[Override], composer: Composer) -> SearchRequest | None:
        try:
            config = SearchConfig.of(self._hydra.sweeper)
        except Refused as refused:
            self._problems += refused.problems
            return None
        return SearchRequest(config, tuple(map(Setting.of, overrides)), tuple(self._groups), composer)

    def _all_overrides(self) -> list[Override]:
        """Return the typed overrides after the config's own sweep (`hydra.sweeper.params`)."""
        params = (self._hydra.sweeper.get("params") or {}) if self._is_multirun else {}
        own = self._parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
        return [*own, *self._typed]

    def _known_options(self, overrides: Sequence[Override]) -> list[Override]:
        """Return the overrides that can be composed; the others become problems."""
        known = []
        for override in overrides:
            if override.is_sweep_override() and not self._is_multirun:
                self._problems.append(
                    f"{as_typed(override)}: several values make a sweep; add -m (--multirun)"
                )
            elif unknown := _unknown_options(override, self._groups):
                self._problems += unknown
            else:
                known.append(override)
        return known

    def _is_choice(self, override: Override) -> bool:
        return override.is_sweep_override() or override.value() in self._groups.get(override.key_or_group, ())

    def _is_plugin(self, kind: str, module: str) -> bool:
        return str(self._hydra[kind]._target_).startswith(f"hydra_plugins.{module}.")

    def _options(self, group: str, kind: ObjectType = ObjectType.CONFIG) -> list[str]:
        return self._loader.get_group_options(group, kind, self._config_name, self._for_hydra)

    def _load(self, overrides: list[str]) -> DictConfig:
        return self._loader.load_configuration(self._config_name, overrides, RunMode.RUN, from_shell=False)

    def _load_run(self, overrides: list[str]) -> DictConfig:
        composed = self._load([*self._for_hydra, *overrides])
        with flag_override(composed, ["struct", "readonly"], False):
            del composed["hydra"]  # most of what would be copied for each run
        return composed


def _search_path(config_dir: Path, overrides: Sequence[Override]) -> str:
    """Return the override that adds a folder to Hydra's search path, beside typed folders."""
    typed: list[Any] = [o.value() for o in overrides if o.key_or_group == "hydra.searchpath"]
    paths = [f"file://{config_dir}", *(str(path) for value in typed[-1:] for path in value)]
    return f"hydra.searchpath={json.dumps(paths)}"


def _unusable_folder(settings: DictConfig, mode: str) -> list[str]:
    """Return a message if Hydra can't make the command's folder."""
    try:
        folder = Path(str(settings[mode].dir)).absolute()
    except OmegaConfBaseException:  # it may need values that exist only once a run starts
        return []
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK):
        return []
    return [f"hydra.{mode}.dir={folder}: {there} is not a folder that can be written to"]


def _unknown_options(override: Override, groups: Mapping[str, list[str]]) -> list[str]:
    """Return a message for each option that a group override names and its group doesn't have."""
    group = override.key_or_group
    if group not in groups or override.is_interval_sweep():
        return []
    options = groups[group]
    given = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
    return [
        f"{group}={option}: not one of {', '.join(options)}{nearest(option, options)}"
        for option in ("null" if value is None else str(value) for value in given)
        if option not in options
    ]
