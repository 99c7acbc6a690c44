"""A run's own random streams, independent of torch's global generator."""

import hashlib
from typing import Literal

import torch


def generator(seed: int, purpose: Literal["init", "dropout", "shuffle"]) -> torch.Generator:
    """Return a CPU generator seeded by (seed, purpose)."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]))
