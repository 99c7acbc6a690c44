"""The rules of a search: how trials are compared, and when; and the rules of earlier versions."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lockstep.config.schema import RunConfig
from lockstep.config.search_config import SearchConfig
from lockstep.data import sources
from lockstep.data.description import iterations_per_epoch
from lockstep.search.rungs import Rungs
from lockstep.search.space import Space

PROPOSING = {"sampler", "seed", "metric", "direction", "pruner", "reduction_factor"}
"""Settings that decide, with those that a version has beside them, what a search tries."""


@dataclass(frozen=True)
class Rules:
    """A search's rules.

    Attributes:
        settings: as asked for, or as they were in an earlier version.
        epochs: of a trial that isn't pruned, the most of them.
        name: of its study, the same for the same search, however many trials it is to have.
    """

    settings: SearchConfig
    rungs: Rungs
    epochs: int
    name: str


def rules(
    search: SearchConfig,
    space: Space,
    corners: Sequence[RunConfig],
    store: str,
    age: int = 0,
) -> Rules:
    """Return the rules of a search.

    The loss of a trial is extrapolated only if its learning rate stays constant, as the curve is no straight
    line otherwise; if the search's direction is the metric's own; and if that counts each instance alike, as
    the loss does.

    Args:
        corners: trials at the ends of the space.
        store: its address.
        age: by how many versions of the numerics it is older than today's.
    """
    is_straight = all(config.optim.schedule == "constant" for config in corners)
    has_its_direction = search.maximizes == (search.metric == "val/accuracy")
    if not is_straight or not has_its_direction or search.metric not in ("val/accuracy", "val/loss"):
        search = search.model_copy(update={"extrapolate": None})
    rungs = _rungs(search, corners)
    decisive = {**search.model_dump(include={*PROPOSING, "finalists", "extrapolate"}), "rungs": rungs.steps}
    return Rules(search, rungs, _epochs(corners), _name(decisive, space, corners, store, age))


def earlier_rules(
    search: SearchConfig, space: Space, corners: Sequence[RunConfig], store: str
) -> Iterator[Rules]:
    """Yield the rules that earlier versions had for the same command, or commands that can't be told from it.

    They are today's, begun with earlier numerics, and those of version 0.1, which compared trials by their
    metric after whole epochs, and promoted one in four by default.
    """
    ages = range(len(_keys(corners)))
    for age in ages[1:]:
        yield rules(search, space, corners, store, age)
    min_epochs = 1 if search.min_epochs is None else search.min_epochs
    factors = [search.reduction_factor, 4] if search.min_epochs is None else [search.reduction_factor]
    for factor in factors if min_epochs == int(min_epochs) else []:
        as_it_was = {"min_epochs": int(min_epochs), "reduction_factor": factor}
        settings = search.model_copy(update={**as_it_was, "finalists": 1, "extrapolate": None})
        decisive = settings.model_dump(include={*PROPOSING, "min_epochs"})
        for age in ages:
            name = _name(decisive, space, corners, store, age)
            yield Rules(settings, _rungs(settings, corners, unit=1), _epochs(corners), name)


def _rungs(search: SearchConfig, corners: Sequence[RunConfig], **unit: int) -> Rungs:
    data = [(config.data, sources.load(config.data).description) for config in corners]
    return Rungs.of(search, _epochs(corners), min(iterations_per_epoch(*of) for of in data), **unit)


def _epochs(corners: Sequence[RunConfig]) -> int:
    return max(config.trainer.epochs for config in corners)


def _name(decisive: object, space: Space, corners: Sequence[RunConfig], store: str, age: int) -> str:
    identity = [
        store,
        corners[0].tracking.experiment,
        decisive,
        space.identity,
        _keys(corners)[age],
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _keys(corners: Sequence[RunConfig]) -> list[tuple[str, ...]]:
    """Return the keys of all corners, of today's numerics first."""
    keys = (config.run_keys(sources.load(config.data).description.digest) for config in corners)
    return list(zip(*(of_run.values() for of_run in keys), strict=True))
