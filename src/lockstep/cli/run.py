"""The function that Hydra calls for each run. Hydra names jobs, and their logs, after this module."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from lockstep.cli import command
from lockstep.config._hydra_compat import VERSION_BASE


def train(_composed: DictConfig) -> float | None:
    """Train and record the run that Hydra composed; returns the metric that sweepers maximise."""
    return command.train_one(train)


def main(conf_dir: Path) -> int:
    """Carry out the command in `sys.argv`, with the settings in a folder; return the exit code."""
    hydra_main = hydra.main(config_path=str(conf_dir), config_name="config", **VERSION_BASE)(train)
    return command.run(train, hydra_main, conf_dir)
