"""`model=module`: a network in a file of the user's. Its code runs only if the command names the file.

A preset, a stored config or a store may come from somebody else; so what they name is not run.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import OmegaConf

from lockstep.config.errors import Refused
from lockstep.config.parsing import as_text, for_shell, parse

PATH = "model.path"

MODELS = ("model", "experiment")
"""The groups that choose a model."""

# Not a file in conf/: the network's arguments become settings, and YAML can't say that a node is open.
_settings = OmegaConf.create({"name": "module", "path": "???"})
OmegaConf.set_struct(_settings, False)
ConfigStore.instance().store(group="model", name="module", node=_settings, provider="lockstep")


class NetworkCode(Protocol):
    """The code of a network that a command names."""

    @property
    def source(self) -> str:
        """What identifies it: the class or function, and a hash of the file's content."""

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all of its settings, plain data, with these given.

        Raises:
            Refused: with a message for each that is unknown, mistyped or missing.
        """


Reader = Callable[[str], NetworkCode]
"""Reads and runs the code at a path, `file.py:Name`."""


def typed_paths(overrides: Iterable[Override]) -> set[str]:
    """Return the values of `model.path` in overrides that were typed."""
    found = set()
    for override in overrides:
        if override.key_or_group == PATH and override.value_type is not None:
            values = override.sweep_iterator() if override.is_choice_sweep() else [override.value()]
            found |= {str(value) for value in values}
    return found


def for_some_runs(overrides: Sequence[Override], hydra: ConfigLoader) -> list[Override]:
    """Return the overrides of a command as Hydra takes them: of several models, only one has a path.

    Hydra composes what the runs share with the default model, where `model.path` needs `++`.
    """
    if not any(o.is_sweep_override() and o.key_or_group in MODELS for o in overrides):
        return list(overrides)
    return [
        parse([f"++{o.input_line}"], hydra)[0]
        if o.key_or_group == PATH and o.type == OverrideType.CHANGE
        else o
        for o in overrides
    ]


def in_a_search(overrides: Iterable[Override], hydra: ConfigLoader) -> list[Override]:
    """Return the overrides of a search, which leaves out what the model of a trial has not."""
    added = f"++{PATH}="
    return [
        parse([text.removeprefix("++")], hydra)[0] if (text := str(o.input_line)).startswith(added) else o
        for o in overrides
    ]


def in_runs_that_have_one(
    runs: Sequence[tuple[str, ...]], has_path: Callable[[Sequence[str]], bool]
) -> list[tuple[str, ...]]:
    """Return runs without the path that `for_some_runs` added, but for those whose model has one.

    Args:
        has_path: tells whether the model of a run, given the overrides beside the path, has one.
    """
    added = f"++{PATH}="
    without = [tuple(text for text in run if not text.startswith(added)) for run in runs]
    having = [has_path(run) for run in without]
    as_typed = [
        tuple(text.removeprefix("++") if text.startswith(added) else text for text in run) for run in runs
    ]
    if not any(having):
        return as_typed
    chosen = zip(as_typed, without, having, strict=True)
    return list(dict.fromkeys(typed if has else other for typed, other, has in chosen))


def resolved(typed: Collection[str], read: Reader, model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of `model=module` with all settings of the network, and what identifies its code.

    Args:
        typed: see `typed_paths`.
        model: as composed.

    Raises:
        Refused: if the path was not typed, or the code can't be run, or doesn't take these settings.
    """
    path = str(model["path"])
    if path not in typed:
        why = "a config must not choose which code runs; type it if you mean it"
        raise Refused([f"{PATH}={path}: {why}: {for_shell([f'{PATH}={as_text(path)}'])}"])
    file, colon, name = path.rpartition(":")
    located = f"{os.path.abspath(os.path.expanduser(file))}{colon}{name}" if colon else path
    code = read(located)
    given = {key: value for key, value in model.items() if key not in ("name", "path")}
    return {"name": "module", "path": located, "source": code.source, **code.settings(given)}
