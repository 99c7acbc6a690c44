"""A run's checkpoint after an epoch or at a rung, from which training resumes with the same bits."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from lockstep.results.history import History

State = Mapping[str, Tensor]
"""The state from which an array resumes a run, see TrainingArray.state."""


BEST = "best"
"""The name, beside those of the state's tensors, of the state after the best epoch, where there is one."""


@dataclass(frozen=True)
class Checkpoint:
    """A run's history up to an epoch or a rung, and its state in the array after it.

    Attributes:
        best: its state after its best epoch so far, see TrainedRun.
    """

    history: History
    state: State
    best: State = field(default_factory=dict)


def to_bytes(state: State, best: State = MappingProxyType({})) -> bytes:
    """Return a run's states as the content of a file: torch.save to a file would hide that a disk is full."""
    written = io.BytesIO()
    torch.save({**state, BEST: dict(best)} if best else dict(state), written)
    return written.getvalue()


def from_bytes(content: bytes) -> tuple[State, State]:
    """Return the states that `to_bytes` made the content of; the second is empty where there is none."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    return state, state.pop(BEST, {})
