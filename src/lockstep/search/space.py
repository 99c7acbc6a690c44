"""What a search may choose, in Hydra's own override grammar, and what it chooses for a trial."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import Trial

from lockstep.config.errors import Refused


@dataclass(frozen=True)
class Dimension:
    """A key or group whose value is searched.

    Attributes:
        key: as it is typed, with Hydra's prefix where it has one.
        texts: of a choice, what each value is in Hydra's grammar.
    """

    key: str
    distribution: BaseDistribution
    texts: tuple[str, ...] = ()

    def suggest(self, trial: Trial) -> str:
        """The override that the trial gets."""
        of = self.distribution
        if isinstance(of, CategoricalDistribution):
            return self.override(trial.suggest_categorical(self.key, of.choices))
        if isinstance(of, IntDistribution):
            return self.override(trial.suggest_int(self.key, of.low, of.high, step=of.step, log=of.log))
        assert isinstance(of, FloatDistribution)
        return self.override(trial.suggest_float(self.key, of.low, of.high, log=of.log))

    def override(self, value: object) -> str:
        """The override that sets a value of the distribution."""
        if isinstance(self.distribution, CategoricalDistribution):
            return f"{self.key}={self.texts[self.distribution.choices.index(value)]}"
        return f"{self.key}={value!r}"

    def ends(self) -> Iterator[str]:
        """Overrides between which all others lie: of a choice, every one."""
        if isinstance(self.distribution, CategoricalDistribution):
            values: Sequence[object] = self.distribution.choices
        else:
            assert isinstance(self.distribution, IntDistribution | FloatDistribution)
            values = (self.distribution.low, self.distribution.high)
        return map(self.override, values)


class Space:
    """All trials that a search may make: groups' options first, then values of keys that those have.

    Args:
        overrides: a command's, parsed; where a key is given twice, the last one counts.
        groups: the names of config groups.
        compose: makes a config of some overrides, which Hydra can do with all but unknown keys.

    Raises:
        Refused: for what is no space, with a message each.
    """

    def __init__(
        self,
        overrides: Sequence[Override],
        groups: Collection[str],
        compose: Callable[[tuple[str, ...]], DictConfig],
    ) -> None:
        self._compose, self._group_names = compose, groups
        self._defaults_of: dict[tuple[str, ...], dict[str, object]] = {}
        last = {override.get_key_element(): override for override in overrides}
        chosen = {key: override for key, override in last.items() if override.key_or_group in groups}
        problems: list[str] = []
        self._fixed_groups = tuple(_typed(o) for o in chosen.values() if not o.is_sweep_override())
        self.groups = self._dimensions(chosen, {}, problems)
        if problems:
            raise Refused(problems)
        values = {key: override for key, override in last.items() if key not in chosen}
        self._fixed = {key: _typed(o) for key, o in values.items() if not o.is_sweep_override()}
        defaults = [self._defaults(options) for options in self.options()]
        known = {
            key: next((d[key.lstrip("+")] for d in defaults if key.lstrip("+") in d), None) for key in values
        }
        self.values = self._dimensions(values, known, problems)
        if problems:
            raise Refused(problems)

    def _dimensions(
        self, overrides: Mapping[str, Override], defaults: Mapping[str, object], problems: list[str]
    ) -> tuple[Dimension, ...]:
        dimensions = []
        for key, override in overrides.items():
            if override.is_sweep_override():
                try:
                    if override.is_interval_sweep() and override.key_or_group in self._group_names:
                        raise ValueError(f"a group is searched by choice: {key}=choice(...)")
                    dimensions.append(_dimension(key, override, defaults.get(key)))
                except (ValueError, ArithmeticError, HydraException) as error:
                    problems.append(f"{_typed(override)}: {error}")
        return tuple(dimensions)

    def __str__(self) -> str:
        return ", ".join(dimension.key for dimension in (*self.groups, *self.values))

    @property
    def identity(self) -> list[list[str]]:
        """Equal for equal spaces."""
        return [
            [dimension.key, distribution_to_json(dimension.distribution), *dimension.texts]
            for dimension in (*self.groups, *self.values)
        ]

    def searched(self, overrides: Sequence[str]) -> list[str]:
        """Of a trial's overrides those that are not the same in all trials."""
        fixed = {*self._fixed_groups, *self._fixed.values()}
        return [override for override in overrides if override not in fixed]

    def options(self) -> Iterator[tuple[str, ...]]:
        """Every choice of groups' options."""
        for searched in product(*(dimension.ends() for dimension in self.groups)):
            yield (*self._fixed_groups, *searched)

    def suggest(self, trial: Trial) -> tuple[str, ...]:
        """A trial's overrides."""
        options = (*self._fixed_groups, *(dimension.suggest(trial) for dimension in self.groups))
        return self._with_values(options, lambda dimension: dimension.suggest(trial))

    def corners(self) -> Iterator[tuple[str, ...]]:
        """Overrides of trials that differ from the first one, of each choice of options, in one value."""
        for options in self.options():
            first = {dimension: next(dimension.ends()) for dimension in self.values}
            yield self._with_values(options, first.__getitem__)
            for dimension in self._of(options):
                for end in list(dimension.ends())[1:]:
                    yield self._with_values(options, {**first, dimension: end}.__getitem__)

    def unknown(self) -> list[str]:
        """Overrides of keys that no choice of options has."""
        everywhere = [self._defaults(options) for options in self.options()]
        typed = {**self._fixed, **{dimension.key: next(dimension.ends()) for dimension in self.values}}
        return [
            override
            for key, override in typed.items()
            if not key.startswith(("+", "~")) and not any(key in defaults for defaults in everywhere)
        ]

    def _with_values(self, options: tuple[str, ...], value_of: Callable[[Dimension], str]) -> tuple[str, ...]:
        defaults = self._defaults(options)
        fixed = [
            override
            for key, override in self._fixed.items()
            if key.startswith(("+", "~")) or not self.groups or key in defaults
        ]
        return (*options, *fixed, *map(value_of, self._of(options)))

    def _of(self, options: tuple[str, ...]) -> list[Dimension]:
        defaults = self._defaults(options)
        return [d for d in self.values if d.key.startswith("+") or d.key in defaults]

    def _defaults(self, options: tuple[str, ...]) -> dict[str, object]:
        """Every key that there is with some options, and its value unless that is changed."""
        if options not in self._defaults_of:
            tree: Any = OmegaConf.to_container(self._compose(options))
            self._defaults_of[options] = dict(_flat(tree))
        return self._defaults_of[options]


def _dimension(key: str, override: Override, default: object) -> Dimension:
    """One dimension; integers where the ends are, unless the key's own value says that it takes others.

    Raises:
        ValueError: where there is nothing to choose from.
    """
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None and value.end is not None
        low, high, log = value.start, value.end, "log" in value.tags
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("an interval has finite ends")
        if not low < high:
            raise ValueError(f"an empty interval: {low:g} is not less than {high:g}")
        if log and low <= 0:
            raise ValueError(f"there is no logarithm of {low:g}; an interval tagged log starts above 0")
        are_integers = isinstance(low, int) and isinstance(high, int)  # int(interval(...))
        if are_integers or (
            float(low).is_integer() and float(high).is_integer() and not isinstance(default, float)
        ):
            return Dimension(key, IntDistribution(int(low), int(high), log=log))
        return Dimension(key, FloatDistribution(float(low), float(high), log=log))
    if isinstance(value, RangeSweep) and isinstance(numbers := value.range(), range):
        if not numbers:
            raise ValueError("an empty range")
        low, high, step = min(numbers), max(numbers), abs(numbers.step)
        if "log" not in value.tags or step == 1:
            if "log" in value.tags and low <= 0:
                raise ValueError(f"there is no logarithm of {low}; a range tagged log starts above 0")
            return Dimension(key, IntDistribution(low, high, log="log" in value.tags, step=step))
    # A shuffled choice is the same space, and the same search, as one that isn't.
    elements = list(value.list if isinstance(value, ChoiceSweep) else override.sweep_iterator())
    texts = tuple(Override._get_value_element_as_str(element) for element in elements)
    if not texts:
        raise ValueError("no value at all, so there is nothing to choose from")
    if len(set(texts)) < len(texts):
        raise ValueError("a value is given twice")
    choices = [_primitive(element, text) for element, text in zip(elements, texts, strict=True)]
    if len(set(choices)) < len(choices):  # as of 1 and true, which are equal
        choices = list(texts)
    return Dimension(key, CategoricalDistribution(choices), texts)


def _primitive(element: object, text: str) -> bool | int | float | str:
    """What the study keeps of a choice: numbers and words as they are, all else as it is typed."""
    if isinstance(element, QuotedString):
        return element.text
    return element if isinstance(element, bool | int | float | str) else text


def _flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")


def _typed(override: Override) -> str:
    assert override.input_line is not None  # the parser sets it
    return override.input_line
