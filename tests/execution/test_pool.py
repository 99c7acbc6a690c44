"""Worker processes: how they start, that they are used again, and that they end."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.clone import REPOSITORY
from helpers.in_worker import HEAVY, settings
from helpers.processes import alive, fork_servers, until, workers_of

from lockstep.execution import pool

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


@pytest.fixture(autouse=True)
def ended(monkeypatch):
    monkeypatch.setattr(pool, "_context", None)  # a command in this process may have started a fork server
    pool.shut_down(kill=True)
    yield
    pool.shut_down(kill=True)


def called(n=2):
    executor = pool.executor(n)
    return [future.result() for future in [executor.submit(settings) for _ in range(4)]]


def test_workers_have_one_thread_each_and_huge_pages_and_leave_the_environment_alone(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    before = dict(os.environ)
    for found in called():
        assert found["pid"] != os.getpid()
        assert found["environment"].items() >= ENVIRONMENT.items()
        assert (found["threads"], found["collects"], found["warns"]) == (1, True, "keep_warning")
    assert os.environ == before


def test_tunables_of_the_users_own_are_kept(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=7")
    assert {found["environment"]["GLIBC_TUNABLES"] for found in called()} == {"glibc.malloc.tcache_count=7"}


def test_workers_are_used_again_until_another_number_is_asked_for():
    called(2)
    started = workers_of(os.getpid())
    assert len(started) == 2
    called(2)
    assert workers_of(os.getpid()) == started
    called(3)
    assert len(workers_of(os.getpid())) == 3
    assert not any(alive(pid) for pid in started)


def test_workers_are_killed_whatever_they_do(monkeypatch):
    monkeypatch.setenv("PATH", "")  # without programs of the system
    executor = pool.executor(2)
    futures = [executor.submit(time.sleep, 1000) for _ in range(2)]
    until(lambda: all(future.running() for future in futures))
    started = workers_of(os.getpid())
    pool.shut_down(kill=True)
    assert len(started) == 2
    assert not any(alive(pid) for pid in started)


SCRIPT = """
import json, os, sys
from helpers.in_worker import settings
from lockstep.execution import pool

before = dict(os.environ)
how = sys.argv[1]
if how != "loky":
    pool.start(draw=how == "draw")
assert os.environ == before
if how != "importing":
    executor = pool.executor(2)
    found = [future.result() for future in [executor.submit(settings) for _ in range(4)]]
    assert not {"torch", "mlflow", "lockstep.execution.workers"} & set(sys.modules)
    print(json.dumps(found), flush=True)
sys.stdin.read()
pool.shut_down()
"""


@pytest.fixture
def script(monkeypatch):
    """A Python process that has workers, by how they start."""
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}/src:{REPOSITORY}/tests")
    command = [sys.executable, "-c", SCRIPT]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = []

    def start(how):
        started.append(subprocess.Popen([*command, how], **pipes, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("how", ["draw", "plain"])
def test_a_fork_server_loads_what_workers_need_once(script, how):
    process = script(how)
    for found in json.loads(process.stdout.readline()):
        assert found["loaded"] == list(HEAVY if how == "draw" else HEAVY[:-1])
        assert found["environment"].items() >= ENVIRONMENT.items()
        assert (found["threads"], found["collects"]) == (1, True)
    [server] = fork_servers(process.pid)
    assert len(list(Path(f"/proc/{server}/task").iterdir())) == 1  # as a process that forks should
    workers = workers_of(process.pid)
    assert len(workers) == 2
    for pid in (server, *workers):  # Ctrl-C reaches them all
        os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert all(alive(pid) for pid in (server, *workers))
    assert process.communicate(input="") == ("", "")
    until(lambda: not any(alive(pid) for pid in (server, *workers)), seconds=5)


@pytest.mark.parametrize("how", ["plain", "loky"])
def test_workers_end_with_the_process_that_started_them_however_it_ends(script, how):
    process = script(how)
    process.stdout.readline()
    workers = workers_of(process.pid) | fork_servers(process.pid)
    assert len(workers) == (2 if how == "loky" else 3)
    process.kill()
    process.wait()
    until(lambda: not any(alive(pid) for pid in workers), seconds=5)


def test_a_fork_server_survives_ctrl_c_and_ends_with_its_process_even_while_it_imports(script):
    process = script("importing")
    until(lambda: fork_servers(process.pid))
    [server] = fork_servers(process.pid)
    os.kill(server, signal.SIGINT)
    until(lambda: "libtorch" in Path(f"/proc/{server}/maps").read_text())
    process.kill()
    process.wait()
    until(lambda: not alive(server), seconds=0.5)


def test_a_program_without_a_main_guard_can_have_workers(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from helpers.in_worker import settings\n"
        "from lockstep.execution import pool\n"
        "print(pool.executor(2).submit(settings).result()['threads'])\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}/tests"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
