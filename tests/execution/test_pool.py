"""Worker processes: started ahead, used again, ended."""

import os
import subprocess
import sys

import pytest
from helpers.clone import REPOSITORY
from helpers.tasks import alive
from joblib import delayed

from lockstep.execution import pool


@pytest.fixture(autouse=True)
def ended():
    pool.kill()
    yield
    pool.kill()


def settings():
    import torch

    return (
        os.getpid(),
        os.environ.get("GLIBC_TUNABLES"),
        os.environ["OMP_NUM_THREADS"],
        torch.get_num_threads(),
    )


def called(n=2):
    with pool.workers(n, threads=1) as call:
        return call(delayed(settings)() for _ in range(4))


def test_workers_have_one_thread_each_and_huge_pages_and_leave_the_environment_alone(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    found = called()
    assert {settings_of_one[1:] for settings_of_one in found} == {("glibc.malloc.hugetlb=1", "1", 1)}
    assert os.getpid() not in {pid for pid, *_ in found}
    assert "GLIBC_TUNABLES" not in os.environ


def test_tunables_of_the_users_own_are_kept(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=7")
    assert {tunables for _, tunables, *_ in called()} == {"glibc.malloc.tcache_count=7"}


def test_workers_started_ahead_are_those_that_work_and_kill_ends_them():
    pool.start(2, draw=True)
    pool.wait()
    started = set(pool.get_reusable_executor(reuse=True)._processes)
    assert len(started) == 2
    assert {pid for pid, *_ in called()} <= started
    pool.kill()
    assert not any(alive(pid) for pid in started)


def test_importing_it_loads_no_torch():
    script = (
        "import sys, lockstep.execution.pool;"
        "print(sorted({'torch', 'mlflow', 'lockstep.execution.workers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
