"""Claims among real processes."""

import subprocess
import sys

from lockstep.recovery.claims import Claims

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


def test_a_claim_is_one_processs_until_it_lets_go(tmp_path):
    path = tmp_path / "folder" / "claims"
    claims = Claims(path)
    assert claims.take("a")
    assert claims.take("a")
    process, taken = holder(path, "a", "b")
    assert taken == ["False", "True"]
    assert not claims.take("b")
    assert claims.take("c")
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "released\n"
    assert claims.take("b")
    end(process)


def test_the_claims_of_a_killed_process_are_free(tmp_path):
    claims = Claims(tmp_path / "claims")
    process, taken = holder(tmp_path / "claims", *(f"run {k}" for k in range(2000)))
    assert set(taken) == {"True"}
    assert not any(claims.take(f"run {k}") for k in range(2000))
    process.kill()
    claims.wait_for("run 0")
    assert all(claims.take(f"run {k}") for k in range(2000))
    end(process)
