"""A search space: its dimensions, and a trial's overrides."""

import math
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import Trial

from lockstep.config.command import SearchRequest
from lockstep.config.errors import Refused
from lockstep.config.overrides import Choice, Interval, Setting
from lockstep.config.run_request import RunRequest
from lockstep.config.schema import types_of

SMALL = 10_000
"""The most points of a space whose untried points are listed."""

Options = tuple[str, ...]
"""One choice of every group's option, as overrides."""


@dataclass(frozen=True)
class Dimension:
    """A key or group whose value is searched.

    Attributes:
        key: as it is typed, with Hydra's prefix if it has one.
        texts: a choice's values in Hydra's grammar.
    """

    key: str
    distribution: BaseDistribution
    texts: tuple[str, ...] = ()

    def suggest(self, trial: Trial) -> str:
        """Return the override that the sampler suggests for a trial."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return self.override(trial.suggest_categorical(self.key, distribution.choices))
        if isinstance(distribution, IntDistribution):
            ends, step, log = (distribution.low, distribution.high), distribution.step, distribution.log
            return self.override(trial.suggest_int(self.key, *ends, step=step, log=log))
        assert isinstance(distribution, FloatDistribution)
        bounds, log = (distribution.low, distribution.high), distribution.log
        return self.override(trial.suggest_float(self.key, *bounds, log=log))

    def override(self, value: object) -> str:
        """Return the override that sets a value of the distribution."""
        if isinstance(self.distribution, CategoricalDistribution):
            return f"{self.key}={self.texts[self.distribution.choices.index(value)]}"
        return f"{self.key}={value!r}"

    def ends(self) -> list[str]:
        """Return the overrides of the least and the greatest value, or of every value of a choice."""
        if isinstance(self.distribution, CategoricalDistribution):
            values: Sequence[object] = self.distribution.choices
        else:
            assert isinstance(self.distribution, IntDistribution | FloatDistribution)
            values = (self.distribution.low, self.distribution.high)
        return [self.override(value) for value in values]

    @property
    def count(self) -> float:
        """How many values there are; infinity where there is no end of them."""
        if isinstance(self.distribution, IntDistribution):  # a range may be too long for len()
            return (self.distribution.high - self.distribution.low) // self.distribution.step + 1
        return math.inf if self.values is None else len(self.values)

    @property
    def values(self) -> Sequence[object] | None:
        """All values, None where there is no end of them."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices
        if isinstance(self.distribution, IntDistribution):
            return range(self.distribution.low, self.distribution.high + 1, self.distribution.step)
        return None


class Space:
    """A search space: first the groups' options, then values of the keys that these options have.

    Args:
        settings: a command's overrides; if a key is given twice, the last one counts.
        groups: the names of config groups.
        known: returns the keys that exist with some options.

    Raises:
        Refused: with a message for each invalid dimension.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        groups: Sequence[str],
        known: Callable[[Options], Container[str]],
    ) -> None:
        self._known = known
        last = {setting.key: setting for setting in settings}.values()
        chosen = [setting for setting in last if setting.name in groups]
        values = [setting for setting in last if setting.name not in groups]
        self._fixed_groups = tuple(setting.text for setting in chosen if not setting.is_sweep)
        self._fixed = {setting.key: setting.text for setting in values if not setting.is_sweep}
        self.groups = _dimensions(chosen, lambda setting: _dimension(setting, is_group=True))
        self.values = _dimensions(values, _dimension)

    @property
    def keys(self) -> list[str]:
        """The keys that are searched."""
        return [dimension.key for dimension in (*self.groups, *self.values)]

    @property
    def identity(self) -> list[list[str]]:
        """The space's definition, equal for equal spaces."""
        return [
            [dimension.key, distribution_to_json(dimension.distribution), *dimension.texts]
            for dimension in (*self.groups, *self.values)
        ]

    def searched(self, overrides: Sequence[str]) -> list[str]:
        """Return a trial's overrides without the overrides that all trials share."""
        fixed = {*self._fixed_groups, *self._fixed.values()}
        return [override for override in overrides if override not in fixed]

    def options(self) -> Iterator[Options]:
        """Yield every combination of the groups' options."""
        for searched in product(*(dimension.ends() for dimension in self.groups)):
            yield (*self._fixed_groups, *searched)

    @cached_property
    def size(self) -> float:
        """The number of points; infinite where a dimension has no end of values."""
        dimensions = [*self.groups, *self.values]
        if any(dimension.count == math.inf for dimension in dimensions):
            return math.inf
        return sum(
            math.prod(dimension.count for dimension in self._of(options)) for options in self.options()
        )

    def untried(self, tried: Collection[tuple[str, ...]]) -> list[dict[str, object]]:
        """Return the values, by key, of all points whose overrides are not among these; none of a space with
        more than SMALL points."""
        points = self._points() if self.size <= SMALL else ()
        return [point for point in points if self._overrides(point) not in tried]

    def _points(self) -> Iterator[dict[str, object]]:
        for chosen in _combinations(self.groups):
            for values in _combinations(self._of(self._options(chosen))):
                yield {**chosen, **values}

    def _overrides(self, point: Mapping[str, object]) -> tuple[str, ...]:
        return self._with_values(self._options(point), lambda of: of.override(point[of.key]))

    def _options(self, point: Mapping[str, object]) -> Options:
        return (*self._fixed_groups, *(group.override(point[group.key]) for group in self.groups))

    def suggest(self, trial: Trial) -> tuple[str, ...]:
        """Return a trial's overrides."""
        options = (*self._fixed_groups, *(dimension.suggest(trial) for dimension in self.groups))
        return self._with_values(options, lambda dimension: dimension.suggest(trial))

    def corners(self) -> Iterator[tuple[str, ...]]:
        """Yield overrides of trials: per choice of options, one with every dimension's first value, and one
        for each other end of a single dimension."""
        for options in self.options():
            first = {dimension: dimension.ends()[0] for dimension in self.values}
            yield self._with_values(options, first.__getitem__)
            for dimension in self._of(options):
                for end in dimension.ends()[1:]:
                    yield self._with_values(options, {**first, dimension: end}.__getitem__)

    def unknown(self) -> list[str]:
        """Return overrides of keys that no choice of options has."""
        everywhere = [self._known(options) for options in self.options()]
        typed = {**self._fixed, **{dimension.key: dimension.ends()[0] for dimension in self.values}}
        return [
            override
            for key, override in typed.items()
            if not key.startswith(("+", "~")) and not any(key in known for known in everywhere)
        ]

    def _with_values(self, options: Options, value_of: Callable[[Dimension], str]) -> tuple[str, ...]:
        known = self._known(options)
        fixed = [
            override
            for key, override in self._fixed.items()
            if key.startswith(("+", "~")) or not self.groups or key in known
        ]
        return (*options, *fixed, *map(value_of, self._of(options)))

    def _of(self, options: Options) -> list[Dimension]:
        known = self._known(options)
        return [d for d in self.values if d.key.startswith("+") or d.key in known]


def _combinations(dimensions: Sequence[Dimension]) -> Iterator[dict[str, object]]:
    for values in product(*(dimension.values or () for dimension in dimensions)):
        yield {dimension.key: value for dimension, value in zip(dimensions, values, strict=True)}


def space_of(search: SearchRequest) -> Space:
    """Return the space of a requested search."""
    return Space(search.settings, search.groups, search.composer.known)


def corners(search: SearchRequest) -> tuple[RunRequest, ...]:
    """Return validated trials at the ends of a search space, to check it before any trial trains.

    Raises:
        Refused: with every error of the search's settings.
    """
    space = space_of(search)
    problems = [search.composer.unknown_key(text, next(space.options())) for text in space.unknown()]
    requests = []
    for overrides in space.corners() if not problems else ():
        try:
            requests.append(search.composer.request(overrides))
        except Refused as refused:
            problems += refused.problems
    if any(request.config.data.val_size == 0 for request in requests):
        problems.append(
            "data.val_size=0: a search decides by a validation split, never by the test set; set some"
            " training instances aside, such as data.val_size=10000 of MNIST's 60,000"
        )
    if problems:
        raise Refused(problems)
    return tuple(requests)


def _dimensions(
    settings: Sequence[Setting], dimension_of: Callable[[Setting], Dimension]
) -> tuple[Dimension, ...]:
    dimensions, problems = [], []
    for setting in settings:
        if setting.is_sweep:
            try:
                dimensions.append(dimension_of(setting))
            except (ValueError, ArithmeticError) as error:
                problems.append(f"{setting.text}: {error}")
    if problems:
        raise Refused(problems)
    return tuple(dimensions)


def _dimension(setting: Setting, is_group: bool = False) -> Dimension:
    """Return the dimension of a setting: of integers if its ends are whole and its key takes no fractions.

    Raises:
        ValueError, ArithmeticError: if it is empty or otherwise invalid.
    """
    if (key := setting.key) == "data.fold":
        raise ValueError("trials are compared on the same instances: give one fold")
    if isinstance(values := setting.values(), Choice):
        return _choice(key, values)
    if isinstance(values, Interval):
        if is_group:
            raise ValueError(f"a group is searched by choice: {key}=choice(...)")
        # The arguments of the user's own network have no types.
        return _interval(key, values, float in (types := types_of(setting.name)) or not types)
    if not values.numbers:
        raise ValueError("an empty range")
    low, high = sorted((values.numbers[0], values.numbers[-1]))
    step = abs(values.numbers.step)
    if values.log and low <= 0:
        raise ValueError(f"there is no logarithm of {low}; a range tagged log starts above 0")
    return Dimension(key, IntDistribution(low, high, log=values.log, step=step))


def _interval(key: str, interval: Interval, allows_fractions: bool) -> Dimension:
    low, high, log = interval.low, interval.high, interval.log
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("an interval has finite ends")
    if not low < high:
        raise ValueError(f"an empty interval: {low:g} is not less than {high:g}")
    if log and low <= 0:
        raise ValueError(f"there is no logarithm of {low:g}; an interval tagged log starts above 0")
    are_integers = isinstance(low, int) and isinstance(high, int)  # int(interval(...))
    are_whole = float(low).is_integer() and float(high).is_integer()
    if are_integers or (are_whole and not allows_fractions):
        return Dimension(key, IntDistribution(int(low), int(high), log=log))
    return Dimension(key, FloatDistribution(float(low), float(high), log=log))


def _choice(key: str, choice: Choice) -> Dimension:
    texts, values = choice.texts, list(choice.values)
    if not texts:
        raise ValueError("no value at all, so there is nothing to choose from")
    if len(set(texts)) < len(texts):
        raise ValueError("a value is given twice")
    if len(set(values)) < len(values):  # such as 1 and true, which are equal
        values = list(texts)
    return Dimension(key, CategoricalDistribution(values), texts)
