"""Imports for all workers: the fork server loads this module, then forks the workers."""

import ctypes
import gc
import importlib
import os
import signal
import sys

if "LOCKSTEP_COMMAND" not in os.environ:
    raise ImportError("only the fork server of a command imports this module")
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1  # end with the command, even during these imports
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(os.environ["LOCKSTEP_COMMAND"]):  # the command has ended already
    sys.exit()

gc.disable()  # it finds nothing here, and would write to memory that the workers share
for name in ("lockstep.execution.workers", "sklearn.decomposition", "sklearn.metrics", "sklearn.neighbors"):
    importlib.import_module(name)
