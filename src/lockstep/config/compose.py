"""A command line → validated configs of all its runs, before Hydra starts any of them.

Hydra stops at the first name it doesn't know, after it has begun to write. Here all runs of a command are
composed first, once each, and every error of the command is listed at once.
"""

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lockstep.config._hydra_compat import config_loader, without_aliases
from lockstep.config.command import Command, SearchRequest
from lockstep.config.composer import Composer, message_of
from lockstep.config.errors import Refused, nearest
from lockstep.config.hydra_settings import in_job, problems_of
from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.loader import Loader, numbered
from lockstep.config.overrides import Setting, as_typed, grid, is_plain, with_own_sweep
from lockstep.config.own_network import (
    Reader,
    for_some_runs,
    in_a_search,
    in_runs_that_have_one,
    resolved,
    typed_paths,
)
from lockstep.config.parsing import for_shell, parse, quoted
from lockstep.config.run_request import RunRequest
from lockstep.config.search_config import SearchConfig
from lockstep.config.targets import typed_keys


def compose(
    conf_dir: Path,
    arguments: Sequence[str],
    multirun: bool = False,
    config_name: str = "config",
    config_dir: Path | None = None,
    read_network: Reader | None = None,
) -> Command:
    """Compose and validate every run of a command.

    Args:
        conf_dir: the folder of the primary config.
        arguments: Hydra overrides as typed.
        multirun: whether `-m` was given; `hydra.mode=MULTIRUN` counts as well.
        config_name: the primary config.
        config_dir: a folder of the user's with more options, as `--config-dir` gives it.
        read_network: reads the code of `model=module`, which is refused without it.

    Raises:
        Refused: listing every unknown group, option and key and every bad value of every run.
    """
    try:
        with config_loader(conf_dir, config_dir, "run") as loader:
            return _CommandLine(loader, config_name, arguments, multirun, read_network).command()
    except HydraException as error:
        raise Refused([message_of(error)]) from error
    except OmegaConfBaseException as error:
        raise Refused([f"{error.full_key}: {str(error).splitlines()[0]}"]) from error


def check_shown(
    conf_dir: Path, arguments: Sequence[str], config_name: str = "config", config_dir: Path | None = None
) -> None:
    """Check the config of a command that Hydra answers with help: before that, it sets up the config's log.

    Raises:
        Refused: if the config names code, see lockstep.config.targets.
    """
    with (
        suppress(HydraException),
        config_loader(conf_dir, config_dir, "run") as loader,
    ):  # Hydra raises it, too
        _CommandLine(loader, config_name, arguments, multirun=False)


class _CommandLine:
    """A command line, parsed by Hydra, and the problems found in it so far."""

    def __init__(
        self,
        hydra: ConfigLoader,
        config_name: str,
        arguments: Sequence[str],
        multirun: bool,
        read_network: Reader | None = None,
    ) -> None:
        overrides = parse(without_aliases(hydra, config_name, arguments), hydra, multirun)
        overrides = for_some_runs(overrides, hydra)
        for_hydra = [override for override in overrides if override.is_hydra_override()]
        swept = [as_typed(override) for override in for_hydra if override.is_sweep_override()]
        if swept:
            raise Refused([f"{text}: a sweep has one value of each setting of Hydra" for text in swept])
        # Set once, here, step by step; later only the problems, the swept keys and Hydra's refusal change.
        self._typed = [override for override in overrides if not override.is_hydra_override()]
        typed = typed_keys(override for override in for_hydra if as_typed(override) in arguments)
        self._loader = Loader(hydra, config_name, list(map(as_typed, for_hydra)), typed)
        self._groups = self._loader.groups
        module = None if read_network is None else partial(resolved, typed_paths(self._typed), read_network)
        self._composer = Composer(self._load_run, self._groups, self._in_job, module)
        self._given = dict(zip(arguments, map(self._composer.for_hydra, overrides), strict=True))
        self._problems: list[str] = []
        self._swept: set[str] = set()
        self._refusal: HydraException | None = None
        self._master = self._composed_master()
        self._is_multirun = multirun or self._master.hydra.mode == RunMode.MULTIRUN

    def command(self) -> Command:
        """Return the command, or raise Refused with all problems."""
        known = self._known_options(self._all_overrides())
        is_ours = self._is_plugin("launcher", "lockstep_launcher")
        requests: list[RunRequest] = []
        search = None
        if self._is_multirun and self._is_plugin("sweeper", "lockstep_search"):
            if not is_ours:
                self._problems.append("hydra/sweeper=search: needs hydra/launcher=lockstep")
            search = self._search(known)
        else:
            requests = self._requests(known)
        if len(requests) == 1:
            differing = self._composer.differing(requests[0].overrides)
            requests = [replace(requests[0], differing=differing)]
        if not self._problems:
            self._problems = self._refusals() or self._bad_settings(requests)
        if self._problems:
            raise Refused(self._problems)
        launcher = LauncherConfig(n_jobs=1)
        if is_ours:
            given = self._master.hydra.launcher
            launcher = LauncherConfig(**{field.name: given[field.name] for field in fields(LauncherConfig)})
        return Command(
            tuple(requests),
            tuple(map(as_typed, self._typed)),
            launcher,
            OmegaConf.select(self._master, "hydra.sweeper.max_batch_size"),
            search,
            self._composer,
            self._is_multirun,
            self._given,
            self._master,
        )

    def _composed_master(self) -> DictConfig:
        try:
            return self._loader.master(list(map(self._composer.for_hydra, self._typed)))
        except HydraException as error:
            self._refusal = error
            return self._loader.master(self._chosen)  # a preset may choose for Hydra, too

    @property
    def _chosen(self) -> list[str]:
        """The typed overrides that choose one option that there is."""
        return [
            as_typed(o)
            for o in self._typed
            if not o.is_sweep_override() and o.value() in self._groups.get(o.key_or_group, ())
        ]

    def _refusals(self) -> list[str]:
        """Return the problems that Hydra has with what a sweep's runs share, though it composes each run."""
        if self._refusal is None:
            return []
        swept = " ".join(as_typed(override) for override in self._typed if override.is_sweep_override())
        known = {*self._composer.values(tuple(self._chosen)), *self._groups}
        return [
            f"{as_typed(o)}: no such key where Hydra has not yet swept {swept};"
            f" write {for_shell([f'++{as_typed(o)}'])}"
            for o in self._typed
            if is_plain(o, self._groups) and not o.is_sweep_override() and o.key_or_group not in known
        ] or [message_of(self._refusal)]

    def _bad_settings(self, requests: Sequence[RunRequest]) -> list[str]:
        """Return the problems with Hydra's own settings."""
        if not self._is_multirun:
            return problems_of(self._master, "run")
        has_own_folders = "subdir: ${hydra.job.num}\n" not in OmegaConf.to_yaml(self._master.hydra.sweep)
        job = self._job(requests[0].overrides) if requests and has_own_folders else self._master
        return problems_of(numbered(job, 0), "sweep")

    def _requests(self, overrides: list[Override]) -> list[RunRequest]:
        runs = [tuple(map(self._composer.for_hydra, overrides))]
        if self._is_multirun:
            runs = in_runs_that_have_one(grid(overrides), self._composer.has_path)
        requests = []
        for number, run in enumerate(runs):
            try:
                requests.append(self._composer.request(run, number))
            except Refused as refused:
                self._problems += refused.problems
        return requests

    def _search(self, overrides: list[Override]) -> SearchRequest | None:
        try:
            config = SearchConfig.of(self._master.hydra.sweeper)
        except Refused as refused:
            self._problems += refused.problems
            return None
        settings = tuple(map(Setting.of, in_a_search(overrides, self._loader.hydra)))
        return SearchRequest(config, settings, tuple(self._groups), self._composer)

    def _all_overrides(self) -> list[Override]:
        """Return the typed overrides after the config's own sweep."""
        params = OmegaConf.select(self._master, "hydra.sweeper.params") if self._is_multirun else None
        own: Any = {} if params is None else OmegaConf.to_container(params, resolve=True)
        overrides = with_own_sweep(own, self._typed, self._loader.hydra)
        self._swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
        return overrides

    def _known_options(self, overrides: Sequence[Override]) -> list[Override]:
        """Return the overrides that can be composed; the others become problems."""
        known = []
        for override in overrides:
            if override.is_sweep_override() and not self._is_multirun:
                self._problems.append(_without_sweep(override))
            elif unknown := self._unknown_options(override):
                self._problems += unknown
            else:
                known.append(override)
        return known

    def _unknown_options(self, override: Override) -> list[str]:
        """Return a message for each option that a group override names and Hydra doesn't find."""
        group = override.key_or_group
        if group not in self._groups or override.is_interval_sweep() or override.is_delete():
            return []
        options = self._groups[group]
        if override.is_range_sweep():
            return [f"{as_typed(override)}: not one of {', '.join(options)}"]
        is_sweep = override.is_sweep_override()
        values = override.sweep_iterator() if is_sweep else [override.value()]
        texts = override.sweep_string_iterator() if is_sweep else [override.get_value_element_as_str()]
        return [
            f"{group}={text}: not one of {', '.join(options)}{nearest(text, options)}"
            for value, text in zip(values, texts, strict=True)
            if not isinstance(value, dict) and text not in options and not self._is_composed(override, text)
        ]

    def _is_composed(self, override: Override, text: str) -> bool:
        """Tell whether Hydra can compose an override with one of its values."""
        try:
            self._composer.compose([f"{override.get_key_element()}={text}"])
        except HydraException:
            return False
        except Refused:
            pass  # see Loader.run
        return True

    def _is_plugin(self, kind: str, module: str) -> bool:
        target = OmegaConf.select(self._master, f"hydra.{kind}._target_")
        return str(target).startswith(f"hydra_plugins.{module}.")

    def _load_run(self, overrides: list[str]) -> DictConfig:
        return self._loader.run(overrides, self._master if self._is_multirun else None, self._swept)

    def _in_job(self, overrides: Sequence[str], number: int | None) -> AbstractContextManager[None]:
        """Let `${hydra:...}` resolve to what a run has there."""
        job = self._job(overrides) if self._is_multirun else self._master
        return in_job(job if number is None or not self._is_multirun else numbered(job, number))

    def _job(self, overrides: Sequence[str]) -> DictConfig:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        return self._loader.job(list(map(self._composer.for_hydra, parsed)))


def _without_sweep(override: Override) -> str:
    text = as_typed(override)
    if override.is_interval_sweep():
        return f"{text}: an interval is searched; add -m hydra/sweeper=search"
    key, _, values = text.partition("=")
    as_text = f"; one text with a comma: {shlex.quote(f'{key}={quoted(values)}')}" if "(" not in text else ""
    return f"{text}: several values make a sweep; add -m (--multirun){as_text}"
