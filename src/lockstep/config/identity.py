"""Which settings are part of what a run is."""

SEEDS = ("seed", "data.shuffle_seed")
"""Runs that differ in these only are repeats."""

_NO_IDENTITY = ("data.root", "data.path", "tracking", "trainer.checkpoint_seconds", "dry_run", "rerun")
"""Where things lie and how a command proceeds. The data counts by the digest of its content."""


def is_identity(key: str) -> bool:
    """Tell whether a setting decides what a run is trained to."""
    return not any(key == path or key.startswith(f"{path}.") for path in _NO_IDENTITY)
