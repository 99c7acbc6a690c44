"""Command line → validated configs of all its jobs, before Hydra starts any of them.

Hydra stops at the first name it doesn't know and says so only once it has begun to write; here all jobs of a
command are composed first and every error of the command is listed at once.
"""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, flag_override
from omegaconf.errors import OmegaConfBaseException

from lockstep.config.errors import Refused, nearest, without_password
from lockstep.config.job import Job
from lockstep.config.schema import MLPConfig, RunConfig, SearchConfig


@dataclass(frozen=True)
class Command:
    """What a command line asks for.

    Attributes:
        jobs: one, or a sweep's; of a search, some between which all its trials lie.
        n_jobs: workers, as joblib counts them; 1 where the launcher isn't Lockstep's.
        search: its settings, or None for what isn't one.
        space: what it searches, in words.
    """

    jobs: list[Job]
    n_jobs: int
    search: SearchConfig | None = None
    space: str = ""


def compose_jobs(
    conf_dir: Path,
    arguments: Sequence[str],
    multirun: bool,
    config_name: str = "config",
    config_dir: Path | None = None,
) -> Command:
    """Compose and validate every job of a command.

    Args:
        conf_dir: the folder of the primary config.
        arguments: Hydra overrides as typed.
        multirun: whether `-m` was given; `hydra.mode=MULTIRUN` counts as well.
        config_name: the primary config.
        config_dir: a folder of the user's with more options, as `--config-dir` gives it.

    Raises:
        Refused: listing every unknown group, option and key and every bad value of every job.
    """
    try:
        with initialize_config_dir(str(conf_dir), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            assert isinstance(loader, ConfigLoaderImpl)
            if config_dir is not None:
                path = loader.get_search_path()
                path.prepend("command-line", f"file://{config_dir}", SearchPathQuery(provider="schema"))
                loader.repository.initialize_sources(path)
            overrides = OverridesParser.create(loader).parse_overrides(list(arguments))
            return _compose_all(loader, overrides, multirun, config_name)
    except HydraException as error:
        cause = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        raise Refused([f"{error}{cause}"]) from error


class SweepComposer:
    """Composes the jobs of a sweep as Hydra does, but each distinct choice of groups only once.

    A job whose other overrides all just change a value is that with the values applied, and takes 4 ms where
    Hydra takes 50. Whatever else an override can do (add, delete, repackage, nest groups) is left to Hydra.

    Args:
        with_hydra: whether jobs are to have their `hydra` node, the greater part of what must be copied.
    """

    def __init__(self, loader: ConfigLoader, sweep_config: DictConfig, with_hydra: bool = True) -> None:
        self._loader, self._sweep_config, self._with_hydra = loader, sweep_config, with_hydra
        self._parser = OverridesParser.create(config_loader=loader)
        self._groups = set(loader.list_groups(""))
        self._bases: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: list[str]) -> DictConfig:
        """One job's config, as Hydra's own `load_sweep_config` makes it."""
        parsed = self._parser.parse_overrides(overrides)
        if not all(_is_plain(override) for override in parsed):
            return self._loader.load_sweep_config(self._sweep_config, overrides)
        choices = tuple(_typed(o) for o in parsed if o.key_or_group in self._groups)
        if choices not in self._bases:
            base = self._loader.load_sweep_config(self._sweep_config, list(choices))
            if not self._with_hydra:
                with flag_override(base, ["struct", "readonly"], False):
                    del base["hydra"]
            self._bases[choices] = base
        composed = copy.deepcopy(self._bases[choices])
        values = [override for override in parsed if override.key_or_group not in self._groups]
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
        if not self._with_hydra:
            return composed
        composed.hydra.overrides.task = overrides
        dirname = composed.hydra.job.config.override_dirname
        composed.hydra.job.override_dirname = get_overrides_dirname(
            parsed, dirname.exclude_keys, dirname.item_sep, dirname.kv_sep
        )
        return composed


def _is_plain(override: Override) -> bool:
    return (
        override.type == OverrideType.CHANGE
        and not override.is_hydra_override()
        and override.package is None
        and "/" not in override.key_or_group
        and not isinstance(override.value(), dict)  # of a group: values, in their place among the others
    )


def _compose_all(
    loader: ConfigLoader, overrides: list[Override], multirun: bool, config_name: str
) -> Command:
    for_hydra = [_typed(override) for override in overrides if override.is_hydra_override()]
    groups = {group: loader.get_group_options(group) for group in loader.list_groups("") if group != "hydra"}
    chosen = [  # a preset may choose for Hydra, too
        _typed(override)
        for override in overrides
        if not override.is_sweep_override() and override.value() in groups.get(override.key_or_group, ())
    ]
    settings = compose(config_name, [*for_hydra, *chosen], return_hydra_config=True).hydra
    multirun = multirun or settings.mode == RunMode.MULTIRUN
    problems = _unusable_folder(settings, "sweep" if multirun else "run")
    if multirun:  # as BasicSweeper does: a config's own sweep comes before what is typed
        params = [f"{key}={value}" for key, value in (settings.sweeper.get("params") or {}).items()]
        overrides = [*OverridesParser.create(loader).parse_overrides(params), *overrides]

    known: list[Override] = []
    for override in overrides:
        if override.is_hydra_override():
            continue
        if override.is_sweep_override() and not multirun:
            problems.append(f"{_typed(override)}: several values make a sweep; add -m (--multirun)")
        elif unknown := _unknown_options(override, groups):
            problems += unknown
        else:
            known.append(override)

    @cache
    def base(choices: tuple[str, ...]) -> DictConfig:
        return compose(config_name, [*for_hydra, *choices])

    own = str(settings.launcher._target_).startswith("hydra_plugins.lockstep_launcher.")
    n_jobs = settings.launcher.n_jobs if own else 1
    if n_jobs == 0:
        problems.append("hydra.launcher.n_jobs=0: needs a worker or more; -1 for one a core")
    search, space, all_typed = None, "", [[_typed(override) for override in known]]
    if multirun and str(settings.sweeper._target_).startswith("hydra_plugins.lockstep_search."):
        if not own:
            problems.append("hydra/sweeper=search: needs hydra/launcher=lockstep")
        try:
            search = SearchConfig.of(settings.sweeper)
        except Refused as refused:
            problems += refused.problems
        if problems:  # of groups' options, which there may be none of
            raise Refused(problems)
        space, all_typed = _corners(known, base, groups)
    elif multirun:
        all_typed = _jobs(known)
    jobs = []
    for typed in all_typed:
        try:
            config = _compose_job(base, OverridesParser.create().parse_overrides(typed), set(groups))
            jobs.append(Job(config, tuple(typed)))
            if search is not None and config.data.val_size == 0:
                problems.append(
                    "data.val_size=0: a search decides by a validation split, never by the test set; set some"
                    " training instances aside, such as data.val_size=10000 of MNIST's 60,000"
                )
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(problems)
    return Command(jobs, n_jobs, search, space)


def _corners(
    overrides: list[Override], base: Callable[[tuple[str, ...]], DictConfig], groups: Mapping[str, list[str]]
) -> tuple[str, list[list[str]]]:
    """What is searched, in words, and the overrides of trials between which all lie."""
    from lockstep.search.space import Space  # here, as only a search needs Optuna

    space = Space(overrides, groups, base)
    if unknown := space.unknown():
        composed = base(next(space.options()))
        typed = OverridesParser.create().parse_overrides(unknown)
        raise Refused([_unknown_key(override, composed) for override in typed])
    return str(space), [list(corner) for corner in space.corners()]


def _unusable_folder(settings: DictConfig, mode: str) -> list[str]:
    """What speaks against the folder that Hydra is going to make for the command."""
    try:
        folder = Path(str(settings[mode].dir)).absolute()
    except OmegaConfBaseException:  # may need what is known only once a job runs
        return []
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK):
        return []
    return [f"hydra.{mode}.dir={folder}: {there} is not a folder that can be written to"]


def _jobs(overrides: list[Override]) -> list[list[str]]:
    """The overrides of each job of a sweep, as Hydra's sweeper makes them."""
    swept = " ".join(_typed(override) for override in overrides if override.is_sweep_override())
    try:
        [jobs] = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    except (ValueError, ArithmeticError) as error:  # such as range() with a step of 0
        raise Refused([f"{swept}: {error}"]) from error
    if not jobs:
        raise Refused([f"{swept}: no value at all, so there is nothing to run"])
    return jobs


def _unknown_options(override: Override, groups: Mapping[str, list[str]]) -> list[str]:
    """A message for each option that a group override names and its group doesn't have."""
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


def _compose_job(
    base: Callable[[tuple[str, ...]], DictConfig], overrides: list[Override], groups: set[str]
) -> RunConfig:
    """One job: what its choice of groups composes to, its plain values on top, validated."""
    choices = tuple(_typed(override) for override in overrides if override.key_or_group in groups)
    values = [override for override in overrides if override.key_or_group not in groups]
    composed = copy.deepcopy(base(choices))
    problems = []
    for override in values:
        try:
            ConfigLoaderImpl._apply_overrides_to_config([override], composed)
        except HydraException as error:
            known = _keys(composed)
            problems.append(
                f"{_typed(override)}: {error}"
                if override.key_or_group in known
                else _unknown_key(override, composed)
            )
    try:
        config = RunConfig.of(composed)
    except Refused as refused:
        raise Refused([*problems, *refused.problems]) from refused
    if without_password(config.tracking.uri) != config.tracking.uri and any(
        override.key_or_group == "tracking.uri" for override in values
    ):
        problems.append(
            f"tracking.uri={config.tracking.uri}: holds a password, which Hydra would write to its files;"
            " give it as MLFLOW_TRACKING_URI in the environment"
        )
    if isinstance(config.model, MLPConfig):
        widths = (composed.model.get("hidden_dim1"), composed.model.get("hidden_dim2"))
        typed = [o for o in values if o.key_or_group in ("model.hidden_dim1", "model.hidden_dim2")]
        if config.model.hidden_dims != widths:
            problems += [
                f"{_typed(override)}: no effect beside model.hidden_dims={list(config.model.hidden_dims)};"
                " give either all widths or hidden_dim1 and hidden_dim2"
                for override in typed
            ]
    if problems:
        raise Refused(problems)
    return config


def _unknown_key(override: Override, composed: DictConfig) -> str:
    key = override.key_or_group
    group, _, name = key.rpartition(".")
    if group in composed and isinstance(composed[group], DictConfig):
        settings = [str(setting) for setting in composed[group] if setting != "name"]
        owner = f"{group}={composed[group].name}" if "name" in composed[group] else group
        has = f"it has {', '.join(settings)}" if settings else "it has no settings"
        return f"{_typed(override)}: not a setting of {owner}; {has}{nearest(name, settings)}"
    keys = _keys(composed)
    same_name = [candidate for candidate in keys if candidate.rpartition(".")[2] == name]
    hint = f"; did you mean {same_name[0]}?" if same_name else nearest(key, keys)
    return f"{_typed(override)}: no such key or group{hint}"


def _typed(override: Override) -> str:
    assert override.input_line is not None  # the parser sets it
    return override.input_line


def _keys(composed: DictConfig) -> list[str]:
    """Every key a user can type, groups first."""
    groups = [str(key) for key in composed]
    settings = [
        f"{group}.{setting}"
        for group in groups
        if isinstance(composed[group], DictConfig)
        for setting in map(str, composed[group])
    ]
    return [*groups, *settings]
