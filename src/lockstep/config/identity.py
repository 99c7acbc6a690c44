"""Settings that identify a run."""

SEEDS = ("seed", "data.shuffle_seed")
"""Runs that differ only in these settings are repeats."""

_NO_IDENTITY = ("data.root", "data.path", "tracking", "trainer.checkpoint_seconds", "dry_run", "rerun")
"""Locations, and how a command proceeds. The data is identified by the digest of its content."""


def is_identity(key: str) -> bool:
    """Tell whether a setting is part of a run's identity."""
    return not any(key == path or key.startswith(f"{path}.") for path in _NO_IDENTITY)
