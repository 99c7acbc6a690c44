"""Train one run, or with -m a sweep: python run.py [-m] key=value ... (see python run.py --help)."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))  # run.py works without an install, and finds our plugins

from lockstep.config import places  # noqa: E402
from lockstep.recovery import interrupts  # noqa: E402

if __name__ == "__main__":
    interrupts.listen()  # before the imports that take a moment
    os.environ[places.ROOT] = str(ROOT)  # conf/ puts all outputs below it, wherever the command starts
    os.environ.pop(places.PROGRAM, None)  # an installed command's, where that has started this one

    from lockstep.cli import run

    sys.exit(run.main(ROOT / "conf"))
