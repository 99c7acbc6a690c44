"""Rungs: the points of a training at which a search promotes or prunes trials."""

import math
from dataclasses import dataclass

from lockstep.config.schema import RunConfig
from lockstep.config.search_config import SearchConfig
from lockstep.data.description import DataDescription, iterations_per_epoch

FIRST_SHARE, FEWEST_ITERATIONS = 0.05, 50
"""The first rung by default: this share of a full training, but no fewer iterations. Halving replayed on 576
recorded trainings (MNIST, Fashion-MNIST, digits) with a first rung at 5 %, reduction factor 3 and three
finalists found runs as good as with 1 and 4 of 10 epochs, for a third less. After 17 iterations, an epoch of
digits, nothing tells good runs from bad ones (rank correlation with the end: 0.16)."""

UNIT = 1000
"""A study's steps per epoch: its trials report after whole numbers of steps."""


@dataclass(frozen=True)
class Rungs:
    """The rungs of a search, in the steps of its study.

    A trial pauses after the iterations that are nearest to a rung, which may be amid an epoch. So trials with
    other minibatches are compared after equal shares of an epoch.

    Attributes:
        steps: in ascending order.
        unit: steps per epoch: UNIT, or 1 in studies of earlier versions, whose rungs are whole epochs.
    """

    steps: tuple[int, ...]
    unit: int = UNIT

    @classmethod
    def of(cls, search: SearchConfig, epochs: int, per_epoch: int, unit: int = UNIT) -> "Rungs":
        """Return the rungs of trials of at most `epochs` epochs, of at least `per_epoch` iterations.

        Successive halving and Hyperband judge after min_epochs times each power of the reduction factor (Li
        et al., 2018: Hyperband, section 3), the median rule after each epoch from min_epochs on.
        """
        first = search.min_epochs or max(FIRST_SHARE * epochs, FEWEST_ITERATIONS / per_epoch)
        if search.pruner == "none":
            return cls((), unit)
        if search.pruner == "median":
            return cls(tuple(unit * epoch for epoch in range(math.ceil(first), epochs)), unit)
        steps, rung = [], round(unit * first)
        while rung < unit * epochs:
            steps.append(rung)
            rung *= search.reduction_factor
        return cls(tuple(steps), unit)

    def epochs(self, rung: int) -> float:
        """Return a rung in epochs."""
        return rung / self.unit

    def iterations(self, config: RunConfig, data: DataDescription) -> dict[int, int]:
        """Return the iterations after which a trial pauses, by rung; no two are equal, or its last."""
        per_epoch, found = iterations_per_epoch(config.data, data), dict[int, int]()
        for rung in self.steps:
            iterations = max(1, round(rung * per_epoch / self.unit))
            if max(found.values(), default=0) < iterations < per_epoch * config.trainer.epochs:
                found[rung] = iterations
        return found
