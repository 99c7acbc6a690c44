"""The store that commit b581169 wrote (see tests/fixtures/README.md), laid into a clone of today's code."""

import hashlib
import json
import platform
import sqlite3
import tarfile
from pathlib import Path

import torch

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "store-b581169.tar.xz"

ROOT = "@ROOT@"
"""Stands in the archive for the folder in which the store was recorded."""

SMALL = ("data=digits", "tracking.pictures=none", "trainer.epochs=2")

GRID = ("-m", *SMALL, "model=logreg", "optim=sgd,adam,adamw")
LEARNING_RATES = ("-m", *SMALL, "model.hidden_dims=[12,8]", "optim.lr=0.05,0.02")
SEEDS = (*LEARNING_RATES, "seed=0,1")
MORE_SEEDS = (*LEARNING_RATES, "seed=0,1,2")
DIVERGING = ("-m", *SMALL, "model.hidden_dims=[8]", "optim.lr=0.1,1e20")
SINGLE = (
    *SMALL,
    "model.hidden_dims=[16]",
    "model.activation=gelu",
    "trainer.precision=float64",
    "optim=adam",
)
SEARCH = (
    *("-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=4", "hydra.sweeper.reduction_factor=2"),
    *("data=digits", "data.val_size=300", "tracking.pictures=none", "trainer.epochs=4"),
    *("model.hidden_dims=[8]", "optim.lr=tag(log,interval(0.01,0.5))"),
)
SHORT_AND_LONG = (
    *("-m", "data=digits", "data.batch_size=128", "tracking.pictures=none", "trainer.epochs=2,160"),
    *("trainer.log_every=110", "trainer.checkpoint_seconds=0.02", "model.hidden_dims=[8]", "optim=sgd,adam"),
)
UNDISTURBED = (*SHORT_AND_LONG, "tracking.experiment=undisturbed")
FINISHED = (GRID, SEEDS, MORE_SEEDS, DIVERGING, SINGLE, SEARCH, UNDISTURBED)
INTERRUPTED = (*SHORT_AND_LONG, "tracking.experiment=interrupted")
"""Was killed when its short runs were in the store and its long ones on their way."""


def unpack(root):
    """Write the old `outputs` below `root`, as the old code would have written it there.

    Folders of unfinished runs and of studies are named by a hash of a text that holds the store's address.
    The archive has the old code's texts, so today's code must come to the same names by itself.
    """
    root = root.resolve()
    outputs = root / "outputs"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(outputs, filter="data")
    texts = json.loads((outputs / "hashed.json").read_text())
    renamed = {ROOT: str(root)} | {
        name: hashlib.sha256(text.replace(ROOT, str(root)).encode()).hexdigest()[:32]
        for name, text in texts.items()
    }
    for path in sorted(outputs.rglob("*"), reverse=True):  # what is in a folder comes before the folder
        if path.is_file():
            content = path.read_bytes()
            for old, new in renamed.items():
                content = content.replace(old.encode(), new.encode())
            path.write_bytes(content)
        path.rename(path.with_name(renamed.get(path.name, path.name)))
    dump = outputs / "mlflow.sql"
    store = sqlite3.connect(outputs / "mlflow.db")
    store.executescript(dump.read_text())
    store.close()
    for path in (dump, outputs / "hashed.json", outputs / "processor.json"):
        path.unlink()


def processor():
    """What a run's last bits depend on: the processor and the instructions that torch uses on it."""
    facts = [platform.machine(), torch.__version__, torch.backends.cpu.get_cpu_capability()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        first = cpuinfo.read_text().partition("\n\n")[0]
        pairs = (line.partition(":") for line in first.splitlines())
        facts += [
            value.strip() for key, _, value in pairs if key.strip() in ("vendor_id", "cpu family", "model")
        ]
    return facts
