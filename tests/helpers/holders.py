"""Processes that hold claims."""

import subprocess
import sys

HOLDER = """
import sys
from pathlib import Path
from lockstep.recovery.claims import Claims
claims = Claims(Path(sys.argv[1]))
for name in sys.argv[2:]:
    print(claims.take(name), flush=True)
sys.stdin.readline()
for name in sys.argv[2:]:
    claims.release(name)
print("released", flush=True)
sys.stdin.readline()
"""


def holder(path, *names):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, [process.stdout.readline().strip() for _ in names]


def end(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
