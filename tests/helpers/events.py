"""Events of a run."""

import math

import numpy as np

from lockstep.recovery.journal import Ended
from lockstep.results.history import Epoch, Evaluation


def epoch(loss_T=(0.1, 1 / 3), evaluations=(), diverged=False, at=1_764_000_000_123):
    loss_T = np.array(loss_T)
    return Epoch(loss_T, loss_T / 7, tuple(evaluations), 0.3, diverged, at, canary="2488b57eabcb5c5f")


EVENTS = [
    epoch(),
    epoch(evaluations=[Evaluation(2, "test", 1e-300, 0.1), Evaluation(2, "val", math.pi, 1.0, 1 / 3, 0.0)]),
    epoch((1.0, math.inf), diverged=True),
    Ended("OSError: no \n “room”", "Traceback ..."),
    Ended(metrics={"space/input/silhouette": 0.1}, warnings=["no curves: OSError: no font"]),
]
