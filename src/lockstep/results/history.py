"""A run's measurements, epoch by epoch; a search divides epochs at its rungs."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

HeldOut = Literal["test", "val"]
SPLITS: tuple[HeldOut, ...] = ("test", "val")

MEASURES = ("loss", "accuracy", "balanced_accuracy", "f1_macro")
"""The scores of an Evaluation."""


Status = Literal["FINISHED", "FAILED", "KILLED"]


FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """Scores over the whole test or validation set, after `iteration` iterations.

    Attributes:
        loss: mean cross-entropy.
        balanced_accuracy, f1_macro: see `class_scores`; None of runs of version 0.1.0.
    """

    iteration: int
    split: HeldOut
    loss: float
    accuracy: float
    balanced_accuracy: float | None = None
    f1_macro: float | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The scores by their names as metrics, those that were measured."""
        values = {f"{self.split}/{name}": getattr(self, name) for name in MEASURES}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Epoch:
    """An epoch's part of a run's history; where a rung divides the epoch, that of one of its parts.

    Attributes:
        loss_T, accuracy_T: each minibatch's; those of a run that diverged end with its last iteration.
        seconds: the run's share of the wall time of its array's training steps, without evaluation: in
            proportion to the time of the runs that are stepped with it, divided by their number.
        diverged: whether a loss was not finite.
        at: when it ended, in milliseconds of Unix time.
        canary: of the machine that trained it, see `lockstep.training.canary`; empty in journals of 0.1.0.
        is_part: whether it ends at a rung, before its epoch does.
    """

    loss_T: FloatArray
    accuracy_T: FloatArray
    evaluations: tuple[Evaluation, ...]
    seconds: float
    diverged: bool
    at: int
    canary: str = ""
    is_part: bool = False


@dataclass
class History:
    """All that was measured of one run. Entry i of the two vectors is iteration i + 1's minibatch.

    Attributes:
        epochs: finished ones.
        seconds: of training, see Epoch.
        diverged_at: the iteration whose loss was not finite, or None.
        evaluations: after epochs, and at rungs.
        marks: for each Epoch added, the iterations done by its end, and when that was.
        rungs: those iterations, of each that was a part of an epoch.
        canaries: of the machines that trained it, see Epoch, each once.
        restored_epoch: the epoch, counted from 1, whose weights a run with early stopping has at its end.
    """

    loss_T: FloatArray = field(default_factory=lambda: np.empty(0))
    accuracy_T: FloatArray = field(default_factory=lambda: np.empty(0))
    evaluations: list[Evaluation] = field(default_factory=list)
    epochs: int = 0
    seconds: float = 0.0
    diverged_at: int | None = None
    marks: list[tuple[int, int]] = field(default_factory=list)
    rungs: list[int] = field(default_factory=list)
    canaries: list[str] = field(default_factory=list)
    restored_epoch: int | None = None

    def add(self, epoch: Epoch) -> None:
        """Add the next epoch, or part of one."""
        self.loss_T = np.concatenate([self.loss_T, epoch.loss_T])
        self.accuracy_T = np.concatenate([self.accuracy_T, epoch.accuracy_T])
        self.evaluations += epoch.evaluations
        self.seconds += epoch.seconds
        if epoch.diverged:
            self.diverged_at = self.iterations
        elif epoch.is_part:
            self.rungs.append(self.iterations)
        else:
            self.epochs += 1
        self.marks.append((self.iterations, epoch.at))
        if epoch.canary and epoch.canary not in self.canaries:
            self.canaries.append(epoch.canary)

    @property
    def iterations(self) -> int:
        """Training iterations done."""
        return len(self.loss_T)

    @property
    def epoch_ends(self) -> list[int]:
        """The iterations done by the end of each finished epoch."""
        return [iterations for iterations, _ in self.marks if iterations not in self.rungs][: self.epochs]

    def summary(self) -> dict[str, float]:
        """Its last and best figures, by their names as metrics; the restored epoch's, if there is one."""
        figures, final = dict[str, float](), self.final()
        for evaluation in final:
            figures |= evaluation.metrics
        if self.restored_epoch is not None:
            figures["test/accuracy_best"] = figures["test/accuracy"]
        elif tests := [*self.of("test"), *(last for last in final if last.split == "test")]:
            figures["test/accuracy_best"] = max(evaluation.accuracy for evaluation in tests)
        return {**figures, "time/train_seconds": self.seconds}

    def final(self) -> list[Evaluation]:
        """The evaluations, one for each split, of the weights that the run has at its end."""
        if self.restored_epoch is not None:
            return [found[self.restored_epoch - 1] for split in SPLITS if (found := self.of(split))]
        last = {evaluation.split: evaluation for evaluation in self.evaluations}
        return [last[split] for split in SPLITS if split in last]

    def of(self, split: HeldOut) -> list[Evaluation]:
        """The evaluations on one split after each epoch, in order."""
        return [
            evaluation
            for evaluation in self.evaluations
            if evaluation.split == split and evaluation.iteration not in self.rungs
        ]
