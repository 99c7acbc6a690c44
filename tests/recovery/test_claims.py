"""Claims among real processes."""

import os
import signal
import threading

import pytest
from helpers.holders import end, holder
from helpers.processes import until

from lockstep.recovery import claims as claims_module
from lockstep.recovery.claims import Claims


def test_a_claim_is_one_processs_until_it_lets_go(tmp_path):
    path = tmp_path / "folder" / "claims"
    claims = Claims(path)
    assert claims.take("a")
    assert claims.take("a")
    process, taken = holder(path, "a", "b")
    assert taken == ["False", "True"]
    assert [claims.holder(name) for name in "abc"] == [None, process.pid, None]
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
    claims.wait_for("run 0", "has it")
    assert all(claims.take(f"run {k}") for k in range(2000))
    end(process)


@pytest.mark.parametrize("state", ["runs", "is stopped"])
def test_a_wait_of_2_seconds_says_for_which_process(tmp_path, monkeypatch, caplog, state):
    monkeypatch.setattr(claims_module, "SAY_SECONDS", 0.1)
    claims = Claims(tmp_path / "claims")
    process, _ = holder(tmp_path / "claims", "a")
    if state == "is stopped":
        os.kill(process.pid, signal.SIGSTOP)
    waiting = threading.Thread(target=claims.wait_for, args=("a", "trains it"))
    waiting.start()
    until(lambda: caplog.messages)
    how = f" (continue it: kill -CONT {process.pid}; end it: kill -9 {process.pid})"
    said = f"process {process.pid}" + (f", which is stopped{how}" if state == "is stopped" else "")
    assert caplog.messages == [f"waiting for {said}, which trains it"]
    assert waiting.is_alive()
    end(process)
    waiting.join(10)
    assert not waiting.is_alive()
