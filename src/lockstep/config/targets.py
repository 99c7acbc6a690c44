"""Code that a config names and Hydra would run: refused unless it is Hydra's own, a plugin's, or was typed.

A preset may come from somebody else. Of a config, Hydra runs what `hydra.callbacks`, `hydra.launcher` and
`hydra.sweeper` name as `_target_`, and what `hydra.job_logging` and `hydra.hydra_logging` name as `()`,
`class` or `ext://…`, as logging.config.dictConfig does. Variables in `hydra.job.env_set` (`PATH`,
`LD_PRELOAD`, `GIT_…`) decide which code other programs run.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pkgutil import resolve_name
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lockstep.config.errors import Refused
from lockstep.config.parsing import as_text, for_shell

_PLUGINS = ("callbacks", "launcher", "sweeper")
"""Settings of Hydra whose `_target_` it instantiates, nested ones as well."""

_LOGS = ("job_logging", "hydra_logging")
"""Settings of Hydra in the form of logging.config.dictConfig."""

_LOGGING = {
    *(f"logging.{name}" for name in ("Formatter", "Filter", "StreamHandler", "FileHandler", "NullHandler")),
    *(f"logging.handlers.{name}Handler" for name in ("RotatingFile", "TimedRotatingFile", "WatchedFile")),
    "colorlog.ColoredFormatter",
    *("ext://sys.stdout", "ext://sys.stderr"),
}
"""What a log may name: formatters and handlers that only write. The last but two is hydra_colorlog's."""


def check(composed: DictConfig, typed: Collection[str]) -> None:
    """Check a config with its `hydra` node before Hydra uses it.

    Args:
        typed: see typed_keys.

    Raises:
        Refused: with a message for each key that names code, or sets a variable of the environment.
    """
    named = [found for section in (*_PLUGINS, *_LOGS) for found in _code(composed.hydra, section)]
    settings: Any = OmegaConf.to_container(composed.hydra.job.env_set)
    named += [
        (f"hydra.job.env_set.{name}", value)
        for name, value in settings.items()
        if value != os.environ.get(name)
    ]
    problems = [
        f"{key}={value}: a config must not choose what Hydra runs; type it if you mean it: "
        + for_shell([f"++{key}={as_text(value)}"])
        for key, value in named
        if key not in typed
    ]
    if problems:
        raise Refused(problems)


def typed_keys(overrides: Iterable[Override]) -> set[str]:
    """Return the keys of all values that overrides set, such as `hydra.callbacks.mine._target_`."""
    return {key for o in overrides if not o.is_sweep_override() for key in _keys(o.key_or_group, o.value())}


def _keys(key: str, value: Any) -> Iterator[str]:
    yield key
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, element in inner:
        yield from _keys(f"{key}.{name}", element)


def _code(hydra: DictConfig, section: str) -> Iterator[tuple[str, Any]]:
    """Yield each key in a section of Hydra's settings that names code, and the code's name."""
    for path, value, is_open in _values(hydra, [section], set()):
        name = path[-1]
        if (
            # What can't be resolved yet may come to be a mapping that is instantiated.
            (is_open and (section in _PLUGINS or len(path) <= 3))
            or (name == "_target_" and not _is_hydras(value))
            or (section in _LOGS and name in ("()", "class") and value not in _LOGGING)
            or (section in _LOGS and str(value).startswith("ext://") and value not in _LOGGING)
        ):
            yield ".".join(["hydra", *map(str, path)]), value


def _values(node: Any, path: list[Any], seen: set[int]) -> Iterator[tuple[list[Any], Any, bool]]:
    """Yield what is at a path and below it: path, value, and whether it is an interpolation not resolved yet.

    Args:
        node: holds the last key of the path.
        seen: the ids of nodes above, which an interpolation may lead back to.
    """
    key, is_open = path[-1], False
    unresolved: Any
    try:
        value = node[key]
    except OmegaConfBaseException:
        is_open, unresolved = OmegaConf.is_interpolation(node, key), OmegaConf.to_container(node)
        value = unresolved[key]
    if not isinstance(value, DictConfig | ListConfig):
        yield path, value, is_open
    elif id(value) not in seen:
        for name in value if isinstance(value, DictConfig) else range(len(value)):
            yield from _values(value, [*path, name], {*seen, id(value)})


def _is_hydras(target: Any) -> bool:
    """Tell whether a target is a class in Hydra or a plugin that is made to be instantiated by Hydra."""
    with suppress(Exception):  # whatever importing it raises
        if str(target).startswith(("hydra.", "hydra_plugins.")):
            return issubclass(resolve_name(target), Callback | Launcher | Sweeper)
    return False
