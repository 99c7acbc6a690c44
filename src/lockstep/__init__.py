"""Lockstep: train the runs of a sweep together, record every one in MLflow."""
