"""run.py's command: checks all of its runs, hands them to Hydra, and returns the exit code.

Heavy imports wait until a command runs: `--help` loads neither torch nor mlflow.
"""

import gc
import os
import shlex
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import filter_overrides
from hydra.types import TaskFunction

from lockstep.config._hydra_compat import arguments_parser
from lockstep.config.compose import Command, compose
from lockstep.config.errors import without_password
from lockstep.config.run_request import Typed
from lockstep.execution.collector import uncollected
from lockstep.recovery import interrupts
from lockstep.terminal.console import open_streams

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 128 + signal.SIGINT


def run(task_function: TaskFunction, hydra_main: Callable[[], None], conf_dir: Path) -> int:
    """Carry out the command in `sys.argv`.

    Args:
        task_function: the function that Hydra calls; it carries the command to Hydra's plugins.
        hydra_main: the same function, decorated by `@hydra.main`.
        conf_dir: its configuration folder.

    Returns:
        The exit code: 0 all well; 1 a run failed, or results could not be saved; 2 refused before anything
        started; 130 or 143 interrupted.
    """
    open_streams()
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        if not os.environ.get(name):
            os.environ.pop(name, None)  # set to nothing is not set
    arguments = arguments_parser().parse_args()
    trains = not (arguments.help or arguments.hydra_help or arguments.cfg or arguments.info)
    if not trains or arguments.shell_completion:
        hydra_main()
        return OK
    try:
        return _checked(task_function, hydra_main, conf_dir, arguments)
    except KeyboardInterrupt:
        print(
            "interrupted; finished runs are recorded, and the same command resumes the others from their"
            " last checkpoints",
            file=sys.stderr,
        )
        return INTERRUPTED


def of_task(task_function: TaskFunction) -> Command | None:
    """Return the command that a task function carries, None if it isn't Lockstep's."""
    return getattr(task_function, "command", None)


def train_one(task_function: TaskFunction) -> float | None:
    """Train the one run of a command without a sweep; return the metric that sweepers maximise.

    Raises:
        RunFailed: if the run did not finish.
    """
    from lockstep.sweep.session import carry_out

    command = of_task(task_function)
    assert command is not None
    request = command.request(filter_overrides(HydraConfig.get().overrides.task))
    standings = carry_out([request], sweep=None)
    return standings.runs[0].value(standings.ranking.metric)


def _checked(
    task_function: TaskFunction, hydra_main: Callable[[], None], conf_dir: Path, arguments: Namespace
) -> int:
    from hydra.errors import HydraException

    from lockstep.config.errors import Refused
    from lockstep.terminal.console import show_log

    interrupts.listen()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them and exiting with 1
    show_log()
    try:
        command = compose(
            conf_dir / (arguments.config_path or ""),
            arguments.overrides,
            arguments.multirun,
            arguments.config_name or "config",
            Path(arguments.config_dir).absolute() if arguments.config_dir else None,
        )
        command = replace(command, typed=_typed(arguments))
        task_function.command = command  # type: ignore[attr-defined]
        return _carried_out(command, hydra_main)
    except (HydraException, Refused) as refused:
        print(without_password(str(refused)), file=sys.stderr)
        return REFUSED


def _typed(arguments: Namespace) -> Typed:
    """Return the command in `sys.argv`, and what its runs need beside their overrides."""
    flags = ("config_path", "config_name", "config_dir")
    words = [f"--{flag.replace('_', '-')}={value}" for flag in flags if (value := getattr(arguments, flag))]
    words += [override for override in arguments.overrides if override.startswith("hydra.searchpath=")]
    whole, alone = (shlex.join(["python", "run.py", *some]) for some in (sys.argv[1:], words))
    return Typed(without_password(whole), without_password(alone))


def _carried_out(command: Command, hydra_main: Callable[[], None]) -> int:
    from lockstep.execution import pool

    requests = command.requests
    if command.search is not None:
        from lockstep.search.space import corners

        requests = corners(command.search)
    configs = [request.config for request in requests]
    is_dry = any(config.dry_run for config in configs)
    _start_workers(command, configs, is_dry)
    with uncollected():
        from lockstep.execution import task
        from lockstep.results.run_result import RunFailed
        from lockstep.sweep import checks, planning, session
    try:
        checks.check_runs(configs)
        if is_dry and command.search is not None:
            from lockstep.search.session import show

            show(command.search, configs, command.n_jobs)
        elif is_dry:
            planning.show_plan(requests, command.n_jobs)
        else:
            checks.check_store(configs)
            hydra_main()
    except (RunFailed, session.NotUploaded) as failed:
        print(without_password(str(failed)), file=sys.stderr)
        return FAILED
    except OSError as error:
        if error.errno not in task.NO_ROOM:
            raise
        print(f"{error}: make room, then give the same command again; it resumes from here", file=sys.stderr)
        return FAILED
    finally:
        pool.shut_down()
        gc.freeze()  # see uncollected
    return OK


def _start_workers(command: Command, configs: Sequence[Any], is_dry: bool) -> None:
    """Start the server that forks workers, while this process loads its imports."""
    from lockstep.execution import pool
    from lockstep.execution.cores import count_workers

    n_runs = len(configs) if command.search is None else command.search.config.n_trials
    n_workers = min(n_runs, count_workers(command.n_jobs))
    if n_workers > 1 and not is_dry:
        pool.start(draw=any(config.tracking.pictures == "all" for config in configs))
