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
    monkeypatch.setattr(pool, "_modules", ())  # these tests need none of them: the server starts at once
    pool.shut_down()
    yield
    pool.shut_down()


def submitted(n, function, *arguments):
    """Workers that are busy with a function."""
    workers = []
    for _ in range(n):
        workers.append(pool.worker())
        workers[-1].submit(function, *arguments)
    return workers


def called(n, function, *arguments):
    return [worker.result() for worker in submitted(n, function, *arguments)]


def test_workers_have_one_thread_each_and_huge_pages_and_leave_the_environment_alone(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    before = dict(os.environ)
    for found in called(2, settings):
        assert found["pid"] != os.getpid()
        assert found["environment"].items() >= ENVIRONMENT.items()
        assert (found["threads"], found["collects"], found["warns"]) == (1, True, "keep")
    assert os.environ == before


def test_tunables_of_the_users_own_are_kept(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=7")
    assert called(1, os.getenv, "GLIBC_TUNABLES") == ["glibc.malloc.tcache_count=7"]


def test_workers_are_used_again_and_started_as_more_are_needed():
    pids = called(2, os.getpid)
    assert set(pids) == workers_of(os.getpid())
    assert called(2, os.getpid) == pids
    more = called(3, os.getpid)
    assert more[:2] == pids
    assert len(set(more)) == 3


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_worker_that_dies_costs_its_own_call_only(state):
    pids = called(2, os.getpid)
    if state == "busy":
        first, second = submitted(2, time.sleep, 0.3)
        os.kill(pids[0], signal.SIGKILL)
        assert pool.wait([first, second], 10) == [first]
        with pytest.raises(pool.WorkerDied):
            first.result()
        assert second.result() is None
    else:
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: pool._workers[0].has_died)
    again = called(2, os.getpid)
    assert pids[1] in again
    assert pids[0] not in again


def test_a_call_that_raises_is_a_worker_that_dies_with_a_traceback(capfd):
    [worker] = submitted(1, int, "x")
    with pytest.raises(pool.WorkerDied):
        worker.result()
    assert "ValueError: invalid literal" in capfd.readouterr().err


def test_a_server_that_dies_is_started_again():
    pids = called(2, os.getpid)
    [server] = fork_servers(os.getpid())
    os.kill(server, signal.SIGKILL)
    until(lambda: not alive(server) and all(worker.has_died for worker in pool._workers))
    assert not {*called(2, os.getpid)} & {*pids}


@pytest.mark.parametrize("is_stopped", [False, True])
def test_workers_are_killed_whatever_they_do(monkeypatch, is_stopped):
    monkeypatch.setenv("PATH", "")  # without programs of the system
    pids = called(2, os.getpid)
    submitted(2, time.sleep, 1000)
    for pid in pids if is_stopped else ():
        os.kill(pid, signal.SIGSTOP)
    pool.shut_down()
    until(lambda: not any(alive(pid) for pid in pids), seconds=5)  # the kernel clears up


SCRIPT = """
import json, os, sys
from helpers.in_worker import settings
from lockstep.execution import pool

before = dict(os.environ)
how = sys.argv[1]
pool.start({"light": (), "draw": (*pool.TRAINING, *pool.DRAWING)}.get(how, pool.TRAINING))
assert os.environ == before
if how != "importing":
    workers = []
    for _ in range(2):
        workers.append(pool.worker())
        workers[-1].submit(os.getpid if how == "light" else settings)
    found = [worker.result() for worker in workers]
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


def open_to_others(pid):
    """What other processes can find of a process: shared memory, internet sockets, sockets with a name."""
    targets = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {target[len("socket:[") : -1] for target in targets if target.startswith("socket:")}
    found = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/dev/shm/" in line]
    for name, column in {"tcp": 9, "tcp6": 9, "udp": 9, "udp6": 9, "unix": 6}.items():
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[column] in inodes and (name != "unix" or len(fields) > column + 1):
                found.append(line)
    return found


@pytest.mark.parametrize("ending", ["killed", "killed with its group", "killed while a worker is stopped"])
def test_workers_end_with_their_process_however_it_ends_and_leave_nothing(script, ending):
    process = script("light")
    process.stdout.readline()
    workers = workers_of(process.pid)
    started = {process.pid, *workers, *fork_servers(process.pid)}
    assert len(started) == 4
    assert [open_to_others(pid) for pid in started] == [[]] * 4
    if ending == "killed with its group":
        os.killpg(process.pid, signal.SIGKILL)
    elif ending == "killed while a worker is stopped":
        os.kill(min(workers), signal.SIGSTOP)
    process.kill()
    process.wait()
    until(lambda: not any(alive(pid) for pid in started), seconds=5)


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
        "from lockstep.execution import pool\n"
        "pool._modules = ()\n"
        "worker = pool.worker()\n"
        "worker.submit(max, 1, 2)\n"
        "print(worker.result())\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}/tests"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("2\n", "")
