"""Lockstep: train the runs of a sweep together, record every one in MLflow."""

__version__ = "0.1.0"
