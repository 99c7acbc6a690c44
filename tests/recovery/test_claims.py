"""Claims among real processes."""

import os
import signal
import tempfile
import threading
from pathlib import Path

import pytest
from helpers.configs import job
from helpers.holders import end, holder
from helpers.processes import until

from lockstep.config.errors import Refused
from lockstep.recovery import claims as claims_module
from lockstep.recovery.claims import Claims
from lockstep.sweep import checks


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


@pytest.fixture
def root(monkeypatch):
    """A folder that every user may look into, unlike tmp_path."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        monkeypatch.setenv("LOCKSTEP_ROOT", name)
        yield Path(name)


@pytest.fixture
def another_user():
    """This process has no rights to what root owns."""
    if os.geteuid():
        pytest.skip("only root can be another user")
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("a file", "unfinished: File exists"),
        ("a folder", "claims: Is a directory"),
        ("another user's", "claims: Permission denied"),
        ("missing, and nobody may make it", "claims: Permission denied"),
    ],
)
def test_claims_that_cannot_be_made_are_refused_before_anything_is_made(root, request, kind, said):
    folder = root / "outputs" / "unfinished"
    folder.parent.mkdir()
    if kind == "a file":
        folder.touch()
    else:
        folder.mkdir()
    if kind == "a folder":
        (folder / "claims").mkdir()
    if kind == "another user's":
        (folder / "claims").touch()
    if "denied" in said:
        request.getfixturevalue("another_user")
    with pytest.raises(Refused) as caught:
        checks.check_store([job(f"sqlite:///{root}/mlflow.db").config])
    assert f"{root}/outputs/{said}" in str(caught.value).replace("unfinished/", "")
    hint = f"; user root can share it: chmod a+rw {folder}/claims"
    assert (hint in str(caught.value)) == (kind == "another user's")
    assert not (root / "mlflow.db").exists()


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
