"""A run's checkpoint after an epoch, from which training resumes with the same bits."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lockstep.results.history import History

State = Mapping[str, Tensor]
"""The state from which an array resumes a run, see TrainingArray.state."""


@dataclass(frozen=True)
class Checkpoint:
    """A run's history up to an epoch, and its state in the array after it."""

    history: History
    state: State


def to_bytes(state: State) -> bytes:
    """Return a state as the content of a file: torch.save to a file would hide that a disk is full."""
    written = io.BytesIO()
    torch.save(dict(state), written)
    return written.getvalue()


def from_bytes(content: bytes) -> State:
    """Return the state that `to_bytes` made the content of."""
    state: State = torch.load(io.BytesIO(content), weights_only=True)
    return state
