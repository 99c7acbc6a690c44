"""Settings that identify a run, and the version of the numerics that train it."""

from functools import cache

NUMERICS_VERSION = 3
"""Part of every run key. Raise it when a change makes the same config train to other numbers."""

EARLIER_VERSIONS = (2,)
"""The earlier versions whose finished runs still count, latest first; their interrupted runs train anew."""

SEEDS = ("seed", "data.shuffle_seed", "data.fold")
"""Runs that differ only in these settings are repeats: other random numbers, or another fold."""

_CONTENT = (
    *("data.root", "data.path", "data.scale", "model.path"),
    *("data.test_path", "data.target", "data.features", "data.drop", "data.missing"),
)
"""Settings that name files, or choose from a table: data is identified by a digest of its scaled content, and
the user's own network by `model.source`."""

_PROCEDURE = ("tracking", "trainer.checkpoint_seconds", "dry_run", "rerun")
"""Settings of how a command proceeds, which change no number."""

ADDED = {
    "data.augment.flip": "false",
    "data.augment.shift": "0",
    "data.fold": "null",
    "data.folds": "null",
    "optim.clip_norm": "null",
    "trainer.class_weights": "null",
    "trainer.label_smoothing": "0.0",
    "trainer.monitor": "val/loss",
    "trainer.patience": "null",
    "trainer.threads": "1",
}
"""Settings that were added later, with the values, as text, that leave a run's numbers as they were.

A run key leaves them out where they have these values. Runs that were stored before have no such params."""


@cache
def is_identity(key: str) -> bool:
    """Tell whether a setting is part of a run's identity."""
    return changes_numbers(key) and key not in _CONTENT


@cache
def changes_numbers(key: str) -> bool:
    """Tell whether a setting may change what a run computes."""
    return not any(key == path or key.startswith(f"{path}.") for path in _PROCEDURE)
