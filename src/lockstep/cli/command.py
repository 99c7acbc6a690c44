"""A command: checked as a whole, handed to Hydra, ended with a truthful exit code.

Light until a command really runs: `--help` loads neither torch nor mlflow.
"""

import gc
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.types import TaskFunction

from lockstep.execution.collector import uncollected
from lockstep.recovery import interrupts

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 128 + signal.SIGINT


def in_lockstep(task_function: TaskFunction) -> TaskFunction:
    """Mark a task function that trains the run it is given: the launcher trains its jobs together instead."""
    task_function.in_lockstep = True  # type: ignore[attr-defined]
    return task_function


def run(hydra_main: Callable[[], None], conf_dir: Path) -> int:
    """Carry out the command in `sys.argv`.

    Args:
        hydra_main: the function that `@hydra.main` made.
        conf_dir: its configuration folder.

    Returns:
        The exit code: 0 all well; 1 a run failed; 2 refused before anything started; 130 or 143 interrupted.
    """
    arguments = get_args_parser().parse_args()
    trains = not (arguments.help or arguments.hydra_help or arguments.cfg or arguments.info)
    if not trains or arguments.shell_completion:
        hydra_main()
        return OK
    try:
        return _train(hydra_main, conf_dir, arguments)
    except KeyboardInterrupt:
        print(
            "interrupted; what has finished is recorded, and a sweep goes on from its last checkpoints with"
            " the same command",
            file=sys.stderr,
        )
        return INTERRUPTED


def _train(hydra_main: Callable[[], None], conf_dir: Path, arguments: Namespace) -> int:
    from hydra.errors import HydraException
    from joblib import effective_n_jobs

    from lockstep.config.compose import compose_jobs
    from lockstep.config.errors import Refused, without_password
    from lockstep.terminal.console import show_log

    interrupts.listen()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors on instead of printing them and exiting with 1
    show_log()
    try:
        asked = compose_jobs(
            conf_dir / (arguments.config_path or ""),
            arguments.overrides,
            arguments.multirun,
            arguments.config_name or "config",
            Path(arguments.config_dir).absolute() if arguments.config_dir else None,
        )
        from lockstep.execution import pool

        n_runs = len(asked.jobs) if asked.search is None else asked.search.n_trials
        n_workers = min(n_runs, effective_n_jobs(asked.n_jobs))
        if n_workers > 1 and not any(job.config.dry_run for job in asked.jobs):
            pool.start(n_workers, any(job.config.tracking.pictures == "all" for job in asked.jobs))
        with uncollected():
            from lockstep.execution import task
            from lockstep.results.run_result import RunFailed
            from lockstep.sweep import session

        try:
            session.check_runs([job.config for job in asked.jobs])
            dry_run = any(job.config.dry_run for job in asked.jobs)
            if dry_run and asked.search is not None:
                from lockstep.search.session import show

                show(asked.search, asked.space, [job.config for job in asked.jobs], asked.n_jobs)
                return OK
            if dry_run:
                session.show_plan(asked.jobs, asked.n_jobs)
                return OK
            session.check_store([job.config for job in asked.jobs])
            hydra_main()
        except (RunFailed, session.Undelivered) as failed:
            print(without_password(str(failed)), file=sys.stderr)
            return FAILED
        except OSError as error:
            if error.errno not in task.NO_ROOM:
                raise
            print(
                f"{error}: make room, then give the same command again; it goes on from here", file=sys.stderr
            )
            return FAILED
        finally:
            pool.wait()
            pool.kill()  # they would end by themselves, but take a second or two
            gc.freeze()  # see uncollected
    except (HydraException, Refused) as refused:
        print(without_password(str(refused)), file=sys.stderr)
        return REFUSED
    return OK
