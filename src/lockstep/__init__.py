"""Lockstep: train the runs of a sweep together, record every one in MLflow."""

from lockstep._version import __version__

__all__ = ["__version__"]
