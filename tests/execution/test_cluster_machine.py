"""What a worker of a cluster says of its machine."""

import pickle
import subprocess
import sys

from lockstep._version import __version__
from lockstep.execution.cluster_machine import Machine, canaries

SCRIPT = """
import pickle, sys
machine = pickle.load(sys.stdin.buffer)
print(machine.torch, "torch" in sys.modules)
"""


def test_who_is_told_of_a_machine_loads_no_torch():
    torch, found = canaries(["float32", "float64"])
    machine = Machine("host", "cache", __version__, torch, found)
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=pickle.dumps(machine), capture_output=True)
    assert done.stdout.decode() == f"{torch} False\n", done.stderr
