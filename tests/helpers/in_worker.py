"""What runs in a worker process."""

import gc
import os
import signal
import sys
import warnings
from pathlib import Path

from helpers.processes import until

HEAVY = ("torch", "sklearn.decomposition", "sklearn.neighbors", "lockstep.pictures.run_pictures")


def settings():
    """What a worker finds."""
    loaded, environment = [name for name in HEAVY if name in sys.modules], dict(os.environ)
    import torch

    return {
        "pid": os.getpid(),
        "loaded": loaded,
        "environment": environment,
        "threads": torch.get_num_threads(),
        "collects": gc.isenabled(),
        "warns": warnings.showwarning.__name__,
    }


def opened(saved):
    """A data set as a worker has it, and which of its files the worker has mapped."""
    from lockstep.data import datasets
    from lockstep.data.array_files import NAMES

    dataset = datasets.mapped(saved)
    inodes = {line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines()}
    return {
        "pid": os.getpid(),
        "description": dataset.description,
        "arrays": {name: getattr(dataset, name).numpy() for name in NAMES},
        "mapped": {
            name for name, path in zip(NAMES, saved.paths, strict=True) if str(path.stat().st_ino) in inodes
        },
    }


def refuse(*problems):
    from lockstep.config.errors import Refused

    raise Refused(problems)


def fail_unpicklably():
    class OwnError(Exception):
        pass

    raise OwnError("what happened\nand more")


def warned():
    warnings.warn("of a library's", UserWarning, stacklevel=1)
    return os.getpid()


def killed(times, log):
    """Be killed so often, then return how often it was called."""
    with log.open("a") as opened:
        opened.write("called\n")
    n_called = len(log.read_text().splitlines())
    if n_called <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return n_called


def reads(pipe):
    """Wait until another process `writes` to it."""
    os.mkfifo(pipe)
    assert pipe.read_text() == "now"


def writes(pipe):
    until(pipe.exists)
    pipe.write_text("now")
    return os.getpid()
