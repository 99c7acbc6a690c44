"""A run after some epochs, from which its training resumes with the same bits."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lockstep.results.history import History

State = Mapping[str, Tensor]
"""What an array needs to resume a run, see TrainingArray.state."""


@dataclass(frozen=True)
class Checkpoint:
    """A run's history until then, and its state in the array."""

    history: History
    state: State


def to_bytes(state: State) -> bytes:
    """Return a state as the content of a file. (Where a disk is full, torch.save would not say so.)"""
    written = io.BytesIO()
    torch.save(dict(state), written)
    return written.getvalue()


def from_bytes(content: bytes) -> State:
    """Return what `to_bytes` wrote."""
    state: State = torch.load(io.BytesIO(content), weights_only=True)
    return state
