"""Composed configs as plain data: that of a run is a changed copy, which shares the rest with the others."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lockstep.config.schema import RunConfig

Choices = tuple[str, ...]
Values = Sequence[tuple[str, Any]]

_INTERPOLATION = re.compile(r"\$\{([^${}]*)")
"""The start of an interpolation, up to one inside it."""

_KEY = re.compile(r"[A-Za-z_][\w.]*")


class Trees:
    """The configs of each choice of groups, as plain data that nobody may change.

    Args:
        base: composes a choice of groups.
    """

    def __init__(self, base: Callable[[Choices], DictConfig]) -> None:
        self._base = base
        self._raw: dict[Choices, dict[str, Any]] = {}
        self._resolved: dict[Choices, tuple[dict[str, Any], frozenset[str]] | None] = {}
        self._parts: dict[int, tuple[object, Any]] = {}  # validated, by the id of a tree that is kept

    def raw(self, choices: Choices, values: Values) -> dict[str, Any] | None:
        """Return a config with these values, interpolations as text; None where only Hydra can set them."""
        if choices not in self._raw:
            tree: Any = OmegaConf.to_container(self._base(choices), enum_to_str=True)
            self._raw[choices] = tree
        return _with(self._raw[choices], values)

    def config(self, choices: Choices, values: Values) -> RunConfig | None:
        """Return a run's validated config; None where Hydra must resolve it, or know what is wrong with it.

        Raises:
            Refused: if a value can't be.
        """
        if choices not in self._resolved:
            self._resolved[choices] = self._resolve(choices)
        if (resolved := self._resolved[choices]) is None:
            return None
        base, references = resolved
        if any("${" in str(value) or _touches(key, references) for key, value in values):
            return None
        tree = _with(base, values)
        if tree is None or "???" in _leaves(tree):
            return None
        known = {key: self._parts[id(part)][1] for key, part in tree.items() if id(part) in self._parts}
        config = RunConfig.of_tree({**tree, **known})
        for key, part in tree.items():
            if part is base[key] and isinstance(part, dict):
                self._parts[id(part)] = part, getattr(config, key)
        return config

    def _resolve(self, choices: Choices) -> tuple[dict[str, Any], frozenset[str]] | None:
        """Return a choice's config with its interpolations resolved, and the keys that these refer to.

        None where that may change from run to run, or its network's code has a say.
        """
        raw = self.raw(choices, ())
        assert raw is not None
        texts = [leaf for leaf in _leaves({**raw, "hydra": None}) if isinstance(leaf, str)]
        bodies = [body for text in texts for body in _INTERPOLATION.findall(text)]
        references = frozenset(body for body in bodies if not body.startswith("oc.env:"))
        is_module = isinstance(raw.get("model"), dict) and raw["model"].get("name") == "module"
        if is_module or not all(map(_KEY.fullmatch, references)):
            return None
        try:
            base = self._base(choices)
            tree: Any = {str(key): base[key] for key in base if key != "hydra"}
            return {k: _plain(node) for k, node in tree.items()}, references
        except OmegaConfBaseException:
            return None


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _touches(key: str, references: Iterable[str]) -> bool:
    """Tell whether a value of this key may change what interpolations refer to."""
    return any(f"{key}.".startswith(f"{other}.") or other.startswith(f"{key}.") for other in references)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value)
    else:
        yield tree


def _with(tree: dict[str, Any], values: Values) -> dict[str, Any] | None:
    """Return a tree with values changed, without changing the tree itself; None where that is Hydra's."""
    changed: dict[str, Any] | None = tree
    for key, value in values:
        if isinstance(value, dict) or changed is None:
            return None  # which may be merged
        changed = _with_one(changed, key.split("."), value)
    return changed


def _with_one(tree: Any, path: Sequence[str], value: Any) -> dict[str, Any] | None:
    if not isinstance(tree, dict) or path[0] not in tree:
        return None
    inner = value if len(path) == 1 else _with_one(tree[path[0]], path[1:], value)
    return None if inner is None and len(path) > 1 else {**tree, path[0]: inner}
