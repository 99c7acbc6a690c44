"""`model=module`: a network in a file of the user's. Its code runs only if the command names the file.

A preset, a stored config or a store may come from somebody else; so what they name is not run.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from lockstep.config.errors import Refused
from lockstep.config.parsing import as_text, for_shell

PATH = "model.path"

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
