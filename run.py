"""Train one run, or with -m a sweep: python run.py [-m] key=value ... (see python run.py --help)."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))  # run.py works without an install, and finds our plugins
os.environ["LOCKSTEP_ROOT"] = str(ROOT)  # conf/ puts all outputs below it, wherever the command starts

from lockstep.recovery import interrupts  # noqa: E402

if __name__ == "__main__":
    interrupts.listen()  # before the imports that take a moment

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from lockstep.cli import command  # noqa: E402
from lockstep.config._hydra_compat import VERSION_BASE  # noqa: E402


def train(_composed: DictConfig) -> float | None:
    """Train and record the run that Hydra composed; returns the metric that sweepers maximise."""
    return command.train_one(train)


if __name__ == "__main__":
    hydra_main = hydra.main(config_path=str(ROOT / "conf"), config_name="config", **VERSION_BASE)(train)
    sys.exit(command.run(train, hydra_main, ROOT / "conf"))
