"""The names of runs and sweeps: short, because MLflow's column of names shows 12 characters."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lockstep.config.identity import changes_numbers
from lockstep.config.run_request import RunRequest
from lockstep.results.winner import SHORT_SEEDS
from lockstep.terminal.console import printable

SHOWN = 12
"""The characters of a name that MLflow's table of runs shows."""

_WORD = re.compile(r"(?!(?:true|false|null|none|auto)$)[A-Za-z][\w.-]*", re.IGNORECASE)
"""A value that needs no key, such as adam or relu."""

_OUTER_COMMA = re.compile(r",(?![^\[]*\])")
"""A comma that is not in a list."""


class _Part(NamedTuple):
    """A key, the last part of what was typed, and its value; an empty key where none is needed."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}" if self.key else self.value


def run_names(requests: Sequence[RunRequest]) -> list[str]:
    """Return each run's name: the overrides that not all runs share; of one run, those that change a default.

    Names are equal only where overrides are. They differ in their first SHOWN characters, if short forms do.
    """
    swept = _swept(requests)
    if not any(swept):
        return [_name_of_one(requests[0])] * len(requests)
    texts = list(dict.fromkeys(swept))
    paths = _common_folders(texts)
    parts = [[part for text in own for part in _parts(text, paths)] for own in texts]
    keys = {part.key for own in parts for part in own}
    candidates = [*zip(*(_forms(own, keys) for own in parts), strict=True), tuple(map(" ".join, texts))]
    unique = [names for names in candidates if len({*names}) == len(names)]
    shortest = max(unique, key=lambda names: len({name[:SHOWN] for name in names}))
    by_texts = dict(zip(texts, shortest, strict=True))
    return [
        printable(by_texts[own]) or request.config.model.name
        for own, request in zip(swept, requests, strict=True)
    ]


def sweep_name(requests: Sequence[RunRequest], n_runs: int) -> str:
    """Return a grid's name: what it sweeps, and the number of its runs."""
    keys = dict.fromkeys(_key(text) for own in _swept(requests) for text in own)
    swept = swept_keys(list(keys)) or _name_of_one(requests[0])
    return f"{swept}, {n_runs} run{'s' * (n_runs != 1)}"


def swept_keys(keys: Sequence[str]) -> str:
    """Return the keys that are swept or searched, as a sweep's name has them."""
    last = [key.rpartition(".")[2] for key in keys]
    return printable(
        " x ".join(key if last.count(short) > 1 else short for key, short in zip(keys, last, strict=True))
    )


def trial_name(number: int, overrides: Sequence[str]) -> str:
    """Return the name of a search's trial: its number, and the values that are searched."""
    parts = [_Part(key, _rounded(value)) for text in overrides for key, value in _parts(text)]
    return printable(" ".join([f"{number}:", *map(str, parts)]))


def confirmation_name(trial: str, seed: int) -> str:
    """Return the name of a trial's run with another seed."""
    return trial.replace(":", f" {SHORT_SEEDS['seed']}{seed}:", 1)


def _swept(requests: Sequence[RunRequest]) -> list[tuple[str, ...]]:
    """Return each run's overrides that not all runs share."""
    common = set.intersection(*(set(request.overrides) for request in requests))
    return [tuple(text for text in request.overrides if text not in common) for request in requests]


def _name_of_one(request: RunRequest) -> str:
    texts = [text for text in request.differing if changes_numbers(_key(text))]
    parts = [str(part) for text in texts for part in _parts(text)]
    return printable(" ".join(parts)) or request.config.model.name


def _forms(parts: Sequence[_Part], keys: set[str]) -> list[str]:
    """Return a run's name in full, and ever shorter.

    Args:
        keys: of all runs' names.
    """
    seeds = [_Part("", f"{SHORT_SEEDS[k]}{v}") if k in SHORT_SEEDS else _Part(k, v) for k, v in parts]
    first = next((index for index, part in enumerate(seeds) if part.key), None)
    but_first = [_Part("", v) if index == first else _Part(k, v) for index, (k, v) in enumerate(seeds)]
    initials = [_Part(_initials(k, keys), v) for k, v in but_first]
    bare = [_Part("", v) for _, v in but_first]
    return [" ".join(map(str, form)) for form in (parts, seeds, but_first, initials, bare)]


def _initials(key: str, keys: set[str]) -> str:
    """Return the first letters of a key, as many as tell it from the others."""
    starts = (key[:length] for length in range(1, len(key)))
    return next((start for start in starts if sum(k.startswith(start) for k in keys) == 1), key)


def _parts(override: str, folders: Mapping[str, str] | None = None) -> Iterator[_Part]:
    """Yield the parts that an override adds to a name.

    Args:
        folders: see `_common_folders`.
    """
    key, equals, value = _key(override), *override.partition("=")[1:]
    if not equals:
        yield _Part("", override)
        return
    if re.fullmatch(r"\{[^{}]+\}", value):
        for inner in _OUTER_COMMA.split(value[1:-1]):
            yield from _parts(inner.replace(":", "=", 1))
        return
    if override == "model=module":
        return  # its path follows
    if key == "model.path":
        yield _Part("", value.rpartition(":")[2])
        return
    if folders and key in folders:
        value = os.path.relpath(_unquoted(value), folders[key])
    elif re.fullmatch(r"\[[^\[\]]+\]", value):
        value = value[1:-1].replace(",", "-")
    value = _unquoted(value)
    yield _Part("" if _WORD.fullmatch(value) else key.rpartition(".")[2], value)


def _common_folders(texts: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return the folder that a key's values share, for keys whose values are paths."""
    values: dict[str, list[str]] = {}
    for text in (text for own in texts for text in own):
        values.setdefault(_key(text), []).append(_unquoted(text.partition("=")[2]))
    return {
        key: os.path.commonpath([os.path.dirname(path) for path in paths])
        for key, paths in values.items()
        if all("/" in path for path in paths) and len({path.startswith("/") for path in paths}) == 1
    }


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _unquoted(value: str) -> str:
    return value[1:-1] if re.fullmatch(r"'[^']*'|\"[^\"]*\"", value) else value


def _rounded(value: str) -> str:
    """Shorten 0.031622776 to 0.03162."""
    is_float = re.fullmatch(r"-?\d*\.\d+(e-?\d+)?|-?\d+e-?\d+", value)
    return f"{float(value):.4g}" if is_float else value
