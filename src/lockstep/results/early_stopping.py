"""Early stopping: after which epoch a run ends, and which epoch's weights it keeps.

The rule is that of Keras' EarlyStopping with restore_best_weights=True. A run with a patience of n ends after
n epochs in a row without a better monitored value; an equal one is not better. At its end it has the weights
of its best epoch, also where it ends because all its epochs are done.
"""

from typing import TYPE_CHECKING

from lockstep.results.history import History

if TYPE_CHECKING:  # this package needs NumPy only
    from lockstep.config.schema import TrainerConfig


def best_epoch(history: History, trainer: "TrainerConfig") -> int:
    """Return the epoch, counted from 1, with the best value of `trainer.monitor`; of equal ones the first."""
    validated = history.of("val")
    if trainer.monitor == "val/loss":
        values = [evaluation.loss for evaluation in validated]
        return values.index(min(values)) + 1
    values = [evaluation.accuracy for evaluation in validated]
    return values.index(max(values)) + 1


def has_ended(history: History, trainer: "TrainerConfig") -> bool:
    """Tell whether a run has ended: it diverged, all its epochs are done, or its patience is over."""
    if history.diverged_at is not None or history.epochs == trainer.epochs:
        return True
    if trainer.patience is None or not history.epochs:
        return False
    return history.epochs - best_epoch(history, trainer) >= trainer.patience
