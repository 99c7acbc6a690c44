"""What every worker needs, loaded once: the fork server imports this module, then forks the workers."""

import ctypes
import gc
import importlib
import os
import signal
import sys

gc.disable()  # it would find nothing, and would write to memory that all workers share

if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1  # the server ends with the command, even while it imports
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(os.environ["LOCKSTEP_COMMAND"]):  # which has ended already
    sys.exit()

for name in ("lockstep.execution.workers", "sklearn.decomposition", "sklearn.metrics", "sklearn.neighbors"):
    importlib.import_module(name)
