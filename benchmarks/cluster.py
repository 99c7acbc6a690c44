"""How many workers of a cluster one command feeds, by workers that replay a recorded run.

`python -m benchmarks.cluster [WORKERS ...]`: a run on digits is trained once. Then, for each number of
workers, a real scheduler and a real command start on this machine, and workers that train nothing: each
attempt writes the recorded events to its scratch folders, an epoch a second, a checkpoint every 30 s, then
the artifacts. All of it is sent, written and recorded as in earnest. Printed: how long the sweep took against
its pace, the CPU time of the command and of the scheduler, and the scheduler's memory after a quarter of
the time and at its most. The workers share the machine with both.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from distributed import Worker
from loky import cpu_count

from benchmarks.commands import ROOT
from lockstep._version import __version__
from lockstep.execution import cluster_attempt
from lockstep.execution.cluster_attempt import Outcome
from lockstep.execution.cluster_machine import Machine, canaries
from lockstep.recovery.journal import Ended, Journal
from lockstep.recovery.run_folder import RunFolder

EPOCHS, RUNS_PER_WORKER, CHECKPOINT_SECONDS = 40, 8, 30
PACE = 1.0
"""Seconds per epoch of an array, at which 8 of the workshop's MLPs take 3.6 s on two cores of Zen 4."""

DATA = ("data=digits", f"trainer.epochs={EPOCHS}", "tracking.pictures=none", "model.hidden_dims=[64]")


def replayed(recorded: Path) -> Any:
    """Return what takes the place of an attempt's training."""
    events = list(Journal(recorded / "journal").unread())
    checkpoint = max(recorded.glob("checkpoint-*.pt"), default=None)

    def trained(attempt: Any) -> Outcome:
        folders: list[RunFolder] = [*attempt._folders.values()]
        saved_at = time.monotonic()
        for event in events:
            if isinstance(event, Ended):
                for folder in folders:
                    shutil.copytree(recorded / "artifacts", folder.artifacts)
            else:
                time.sleep(PACE)
            for folder in folders:
                folder.journal.append(event)
                if checkpoint and time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                    folder.save(len(list(Journal(folder.journal.path).unread())), checkpoint.read_bytes())
            if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                saved_at = time.monotonic()
            attempt._check()
        return Outcome({})

    return trained


def replay(recorded: Path, scheduler_file: str, n: int, first: int) -> None:
    """Be the process of n workers until it is killed."""
    machine = Machine("simulated", "simulated", __version__, *canaries(["float32"]))

    async def describe(precisions: list[str]) -> Machine:
        return machine

    cluster_attempt._Attempt._trained = replayed(recorded)  # type: ignore[method-assign]
    cluster_attempt.describe = describe  # type: ignore[assignment]

    async def serve() -> None:
        with tempfile.TemporaryDirectory() as folder:
            options: Any = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "local_directory": folder}
            workers = [
                Worker(scheduler_file=scheduler_file, name=f"w{first + index}", **options)
                for index in range(n)
            ]
            await asyncio.gather(*workers)
            await asyncio.gather(*(worker.finished() for worker in workers))

    asyncio.run(serve())


def measure(recorded: Path, n: int) -> tuple[float, float, float, list[float]]:
    """Return seconds, CPU seconds of the command and of the scheduler, and the scheduler's MB over time."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = f"{folder}/scheduler.json"
        quiet = os.environ | {"DASK_LOGGING__DISTRIBUTED": "error", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}

        def start(*words: str) -> "subprocess.Popen[bytes]":
            process = subprocess.Popen([sys.executable, *words], env=quiet, cwd=folder)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        dask = ("-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        scheduler = start(*dask, "--dashboard-address", ":0", "--scheduler-file", file)
        while not os.path.exists(file):
            time.sleep(0.1)
        each = -(-n // cpu_count())
        for first in range(0, n, each):
            some = ("-m", "benchmarks.cluster", "replay", str(recorded), file, str(min(each, n - first)))
            start(*some, str(first))
        time.sleep(10 + n / 20)
        command = psutil.Popen(
            [
                *(sys.executable, str(ROOT / "run.py"), "-m", *DATA, f"seed=range(0,{RUNS_PER_WORKER * n})"),
                *(f"hydra.launcher.cluster={file}", f"tracking.uri=sqlite:///{folder}/mlflow.db"),
                f"hydra.sweep.dir={folder}/sweep",
            ],
            env=quiet | {"LOCKSTEP_ROOT": folder},
            stdout=subprocess.DEVNULL,
        )
        began, seen, megabytes, dasks = time.monotonic(), 0.0, list[float](), psutil.Process(scheduler.pid)
        while command.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                seen = sum(command.cpu_times()[:2])
            megabytes.append(dasks.memory_info().rss / 1e6)
            time.sleep(0.5)
        assert command.returncode == 0
        return time.monotonic() - began, seen, sum(dasks.cpu_times()[:2]), megabytes


def main(numbers: list[int]) -> None:
    """Record a run, and print a line for each number of workers."""
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder) / "recorded"
        record(recorded)
        print(f"pace: {EPOCHS * PACE:.0f} s; {RUNS_PER_WORKER} runs per worker")
        for n in numbers:
            took, command, scheduler, megabytes = measure(recorded, n)
            early = megabytes[len(megabytes) // 4]
            print(
                f"{n} workers: {took:.1f} s; CPU s: command {command:.1f}, scheduler {scheduler:.1f};"
                f" scheduler's memory {early:.0f} MB after a quarter, {max(megabytes):.0f} MB at most",
                flush=True,
            )


def record(folder: Path) -> None:
    """Train a run, and leave its journal, a checkpoint and its artifacts in a folder."""
    from lockstep.config.compose import compose
    from lockstep.config.places import conf, settle
    from lockstep.data import sources
    from lockstep.execution.executor import InProcess
    from lockstep.execution.task import Task, TaskRun

    settle()
    [request] = compose(conf(), [*DATA, "trainer.checkpoint_seconds=0"]).requests
    source = sources.load(request.config.data)
    shared = folder.parent / "parent" / "shared"
    for path in (folder, shared):
        path.mkdir(parents=True)
    run = TaskRun(0, request.config, "recorded", folder)
    executor = InProcess([source])
    executor.submit(Task((run,), source.description.digest, shared, threads=1, exact=False))
    executor.wait(lambda number, event: None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["replay"]:
        replay(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main([int(word) for word in sys.argv[1:]] or [10, 50, 100, 200])
