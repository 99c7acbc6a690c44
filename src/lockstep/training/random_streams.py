"""A run's own random streams, independent of torch's global generator."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch


def generator(seed: int, purpose: Literal["init", "dropout", "shuffle", "augment"]) -> torch.Generator:
    """Return a CPU generator seeded by (seed, purpose)."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]))


@contextmanager
def own_random_numbers(generator: torch.Generator) -> Iterator[None]:
    """Have the global generator of its device draw what `generator` would; it goes on from there."""
    of_device = torch.cuda if generator.device.type == "cuda" else torch
    before = of_device.get_rng_state()
    of_device.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(of_device.get_rng_state())
        of_device.set_rng_state(before)
