"""Train one run, or with -m a sweep: python run.py [-m] key=value ... (see python run.py --help)."""

import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))  # run.py works without an install, and finds our launcher
os.environ["LOCKSTEP_ROOT"] = str(ROOT)  # conf/ puts all outputs below it, wherever the command starts

from lockstep.cli import command  # noqa: E402


@hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")
@command.in_lockstep
def main(composed: DictConfig) -> float:
    """Train and record the run that Hydra composed; returns the accuracy that sweepers maximise."""
    from lockstep.sweep.session import train_one

    return train_one(composed)


if __name__ == "__main__":
    sys.exit(command.run(main, ROOT / "conf"))
