"""Text that users type → Hydra's overrides; text that its grammar can't read → how to quote it."""

import os
import re
import shlex
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from lockstep.config.errors import Refused

_PARSER = OverridesParser.create()

_FUNCTIONS = "|".join(_PARSER.functions.definitions)
_STRUCTURE = re.compile(rf"\s*([\[{{'\"]|({_FUNCTIONS})\s*\()")
"""How a value starts that is not plain text."""


def parse(texts: Iterable[str], loader: ConfigLoader | None = None, multirun: bool = False) -> list[Override]:
    """Parse overrides.

    Args:
        loader: finds the options that `glob()` matches.
        multirun: whether a comma separates values of a sweep; else it may be part of a text.

    Raises:
        Refused: with a message for each text that Hydra's grammar can't read.
    """
    overrides, problems = [], []
    for text in texts:
        override = _read(text) or _read(_without_choice(text))
        if override is None or not override.key_or_group:
            problems.append(_unreadable(text, multirun))
        else:
            override.config_loader = loader
            overrides.append(override)
    if problems:
        raise Refused(problems)
    return overrides


def parsed_plain(texts: Iterable[str]) -> list[Override]:
    """Parse the overrides of a run. Runs share most of them; they must not be changed.

    Raises:
        HydraException: if Hydra's grammar can't read one.
    """
    return list(map(_parsed, texts))


@lru_cache(maxsize=32768)
def _parsed(text: str) -> Override:
    return _PARSER.parse_override(text)


def as_if_typed(text: str) -> Any:
    """Return the value that a text would be on the command line: a number for "2"; else the text itself."""
    override = _read(f"key={text}")
    return text if override is None or override.is_sweep_override() else override.value()


def as_text(value: Any) -> str:
    """Return a value in Hydra's grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(as_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{as_text(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, str):
        override = _read(f"key={value}")
        return value if value and override and override.value() == value else quoted(value)
    return "null" if value is None else str(value)


def for_shell(overrides: Iterable[str]) -> str:
    """Return a run's overrides as a user would type them: quoted for a shell, and without the backslashes
    that Hydra writes into every value of a sweep and needs in few."""
    return shlex.join(map(_plain, overrides))


def _plain(override: str) -> str:
    plain = re.sub(r"\\(.)", r"\1", override)
    before, after = _read(override), _read(plain)
    return plain if before and after and repr(before.value()) == repr(after.value()) else override


def quoted(text: str) -> str:
    """Return a text with the quotes of Hydra's grammar."""
    return QuotedString(text, Quote.double).with_quotes()


def _read(text: str) -> Override | None:
    try:
        return _PARSER.parse_override(text)
    except HydraException:
        return None


def _without_choice(text: str) -> str:
    """Return `key=choice(a,b)` as `key=a,b`, which may contain null; Hydra 1.3 reads no null in choice()."""
    return re.sub(r"^([^=]+=)\s*choice\s*\((.*)\)\s*$", r"\1\2", text)


def _unreadable(text: str, multirun: bool) -> str:
    key, equals, value = text.partition("=")
    named = _read(f"{key}=")
    if named is None or not named.key_or_group:
        return f"{text}: {key or 'nothing'} is no key; write key=value, without spaces before ="
    if not equals:
        return f"{text}: no value; write {key}=<value>, without spaces around ="
    if _STRUCTURE.match(value):
        return f'{text}: {_reason(text)}; text with special characters needs quotes: {key}=choice("...")'
    parts = value.split(",") if multirun else [value]
    readable = ",".join(
        part if _read(f"{key}={part}") else quoted(os.path.expanduser(part.strip())) for part in parts
    )
    return f"{text}: Hydra can't read this text without quotes; quote it: {shlex.quote(f'{key}={readable}')}"


def _reason(text: str) -> str:
    try:
        return str(_PARSER.parse_override(text))
    except HydraException as error:
        return str(error).splitlines()[0]
