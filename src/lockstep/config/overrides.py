"""Hydra's override grammar: what a command line sets, sweeps or searches."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    OverrideType,
    QuotedString,
    RangeSweep,
)

from lockstep.config.errors import Refused
from lockstep.config.parsing import as_text, parse
from lockstep.config.schema import flatten

MOST_RUNS = 100_000
"""The most runs of a grid, or values of a range that are listed. All are composed first, some ms each."""


@dataclass(frozen=True)
class Choice:
    """Values to choose from.

    Attributes:
        values: numbers and words as they are, everything else as it is typed.
        texts: each value in Hydra's grammar.
    """

    values: tuple[bool | int | float | str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """All numbers between two; `log` where they are spread on a logarithmic scale."""

    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class Range:
    """Integers; `numbers` may be empty."""

    numbers: range
    log: bool


@dataclass(frozen=True)
class Setting:
    """One override of a command.

    Attributes:
        key: the key or group as typed, with Hydra's prefix (+, ++, ~) and package.
        name: the key or group alone.
        text: the whole override as typed.
        is_sweep: whether it has several values.
    """

    key: str
    name: str
    text: str
    is_sweep: bool
    _override: Override

    @classmethod
    def of(cls, override: Override) -> "Setting":
        """Wrap a parsed override."""
        return cls(
            key=override.get_key_element(),
            name=override.key_or_group,
            text=as_typed(override),
            is_sweep=override.is_sweep_override(),
            _override=override,
        )

    def values(self) -> Choice | Interval | Range:
        """Return the values of a sweep.

        Raises:
            ValueError, ArithmeticError: if it has none, such as `range(0,3,0)`.
        """
        value = self._override.value()
        if isinstance(value, IntervalSweep):
            assert value.start is not None and value.end is not None
            return Interval(value.start, value.end, log="log" in value.tags)
        if isinstance(value, RangeSweep) and isinstance(numbers := value.range(), range):
            is_log = "log" in value.tags
            if not numbers or not is_log or abs(numbers.step) == 1:  # Optuna's log scale has no steps
                return Range(numbers, is_log)
        if isinstance(value, ChoiceSweep):
            value.shuffle = False  # the same choices, whatever their order
        _check_count([self._override])
        elements = list(self._override.sweep_iterator())
        texts = tuple(self._override.sweep_string_iterator())
        return Choice(tuple(map(_primitive, elements, texts)), texts)


def as_typed(override: Override) -> str:
    """Return an override as it was typed."""
    assert override.input_line is not None  # the parser sets it
    return override.input_line


def is_plain(override: Override, groups: Collection[str]) -> bool:
    """Tell whether an override only chooses a group's option or changes values that there are."""
    return (
        override.type == OverrideType.CHANGE
        and not override.is_hydra_override()
        and override.package is None
        and "/" not in override.key_or_group
        and (override.key_or_group in groups or not isinstance(override.value(), dict))
    )


def is_choice(override: Override, groups: Collection[str]) -> bool:
    """Tell whether an override chooses a group's option; `optim={lr:0.1,momentum:0.5}` changes its values."""
    return override.key_or_group in groups and not isinstance(override.value(), dict)


def with_own_sweep(
    params: Mapping[str, Any], typed: Sequence[Override], loader: ConfigLoader
) -> list[Override]:
    """Return a config's own sweep (`hydra.sweeper.params`) and the typed overrides, which come on top.

    Args:
        params: the values of each key: text in Hydra's grammar, or a list of values.
        typed: `~key` takes a key out of the config's own sweep, so that the key has one value, its default.

    Raises:
        Refused: if Hydra's grammar can't read the params.
    """
    own = parse((f"{key}={_values(value)}" for key, value in flatten(params)), loader, multirun=True)
    swept = {override.key_or_group for override in own}
    dropped = [o for o in typed if o.is_delete() and o.key_or_group in swept]
    names = {override.key_or_group for override in dropped}
    return [
        *(override for override in own if override.key_or_group not in names),
        *(override for override in typed if override not in dropped),
    ]


def _values(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(as_text, value)) if value else "choice()"
    return value if isinstance(value, str) else as_text(value)


def grid(overrides: Sequence[Override]) -> list[tuple[str, ...]]:
    """Return the overrides of each run of a sweep: all combinations, in the order of Hydra's basic sweeper.

    Raises:
        Refused: if the overrides leave nothing to run, or ask for an interval, which has no end of values.
    """
    swept = " ".join(as_typed(override) for override in overrides if override.is_sweep_override())
    try:
        _check_count(overrides)
        texts = {override.get_key_element(): list(_texts(override)) for override in overrides}
    except (ValueError, ArithmeticError) as error:  # such as range() with a step of 0
        raise Refused([f"{swept}: {error}"]) from error
    runs = list(product(*texts.values()))
    if not runs:
        raise Refused([f"{swept}: no value at all, so there is nothing to run"])
    return runs


def _check_count(overrides: Sequence[Override]) -> None:
    """Check that all combinations can be listed: a range may have no end.

    Raises:
        ValueError, ArithmeticError: if they are too many.
    """
    total = math.prod(map(_count, overrides))
    if not total <= MOST_RUNS:  # nan isn't, either
        raise ValueError(f"{total:,.0f} combinations; allowed: up to {MOST_RUNS:,}")


def _count(override: Override) -> float:
    """Return about how many values an override has; nan or infinity of a range without finite ends."""
    value = override.value()
    if isinstance(value, RangeSweep) and value.step:
        assert value.start is not None and value.stop is not None
        return max((value.stop - value.start) / value.step, 0.0)
    return len(value.list) if isinstance(value, ChoiceSweep) else 1


def _texts(override: Override) -> Iterator[str]:
    key = override.get_key_element()
    if override.is_interval_sweep():
        raise Refused([f"{as_typed(override)}: a grid has no intervals; hydra/sweeper=search searches them"])
    if override.is_sweep_override():
        yield from (f"{key}={value}" for value in override.sweep_string_iterator())
    elif override.value_type is None:  # ~key
        yield key
    else:
        yield f"{key}={override.get_value_element_as_str()}"


def _primitive(element: object, text: str) -> bool | int | float | str:
    if isinstance(element, QuotedString):
        return element.text
    return element if isinstance(element, bool | int | float | str) else text
