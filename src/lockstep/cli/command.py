"""run.py's command: checks all of its runs, hands them to Hydra, and returns the exit code.

Heavy imports wait until a command runs: `--help` loads neither torch nor mlflow.
"""

import gc
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import filter_overrides
from hydra.types import TaskFunction

from lockstep.cli import environment, failures, workers
from lockstep.cli.failures import OK, REFUSED
from lockstep.config import places
from lockstep.config._hydra_compat import arguments_parser
from lockstep.config.command import Command
from lockstep.config.compose import check_shown, compose
from lockstep.config.errors import Refused, without_password
from lockstep.config.hydra_settings import in_job
from lockstep.config.own_network import NetworkCode
from lockstep.config.run_request import Typed
from lockstep.config.schema import RunConfig
from lockstep.execution.collector import uncollected
from lockstep.recovery import interrupts
from lockstep.terminal.console import console, open_streams, stage


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
    environment.settle()
    arguments = arguments_parser().parse_args()
    if problem := _bad_flags(arguments):
        print(problem, file=sys.stderr)
        return REFUSED
    trains = not (arguments.help or arguments.hydra_help or arguments.cfg or arguments.info)
    if not trains or arguments.shell_completion:
        return _shown(hydra_main, conf_dir, arguments)
    try:
        return _checked(task_function, hydra_main, conf_dir, arguments)
    except (KeyboardInterrupt, SystemExit):
        if not interrupts.has_come():
            raise
        interrupts.leave("interrupted; finished runs are kept, and the same command trains the rest")


def _bad_flags(arguments: Namespace) -> str | None:
    """Return a message for flags that Hydra would answer with a traceback."""
    commands = {name: getattr(arguments, name) for name in ("run", "multirun", "cfg", "info")}
    given = [f"--{name}" for name, value in commands.items() if value]
    folder = arguments.config_dir
    if arguments.experimental_rerun is not None:
        return (
            "--experimental-rerun: not supported, since Hydra runs any code that is in such a file;"
            f" {places.verbs()} reproduce <run id> trains a recorded run again"
        )
    if len(given) > 1:
        return f"{' '.join(given)}: give only one of --run, --multirun, --cfg and --info"
    if arguments.resolve and not (arguments.cfg or arguments.help):
        return "--resolve: needs --cfg or --help"
    if folder is not None and not Path(folder).is_dir():
        return f"--config-dir={folder}: not a folder"
    return "--config-name=: a name is missing" if arguments.config_name == "" else None


def _shown(hydra_main: Callable[[], None], conf_dir: Path, arguments: Namespace) -> int:
    """Have Hydra show its help, a config or completions; nothing of Lockstep's runs."""
    from lockstep.config.parsing import parse

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing tracebacks
    try:
        if not arguments.shell_completion:
            parse(arguments.overrides)
        if arguments.help or arguments.hydra_help:
            check_shown(arguments=arguments.overrides, **_config_of(arguments, conf_dir))
        _tell_hydra(arguments, conf_dir)
        hydra_main()
    except SystemExit as ended:
        return REFUSED if ended.code else OK
    except Exception as error:
        print(failures.message_of(error), file=sys.stderr)
        return REFUSED
    return OK


def _config_of(arguments: Namespace, conf_dir: Path) -> dict[str, Any]:
    """Return where the config is that a command uses, as keyword arguments of compose and check_shown."""
    return {
        "conf_dir": _primary(arguments, conf_dir),
        "config_name": arguments.config_name or "config",
        "config_dir": Path(arguments.config_dir).absolute() if arguments.config_dir else None,
    }


def _primary(arguments: Namespace, conf_dir: Path) -> Path:
    """Return the primary config's folder; `--config-path` is relative to run.py, or without a checkout to
    the current folder."""
    home = conf_dir.parent if places.checkout() else Path.cwd()
    return home / (arguments.config_path or conf_dir)


def _tell_hydra(arguments: Namespace, conf_dir: Path) -> None:
    """Have Hydra find `--config-path`, which it would look for beside the task function's module."""
    if arguments.config_path is not None:
        sys.argv.append(f"--config-path={_primary(arguments, conf_dir)}")


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

    from lockstep.terminal.console import show_log

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them and exiting with 1
    show_log()
    try:
        command = compose(
            arguments=arguments.overrides,
            multirun=arguments.multirun,
            read_network=_run_in_worker,
            **_config_of(arguments, conf_dir),
        )
        command = replace(command, typed=_typed(arguments, command.is_multirun))
        task_function.command = command  # type: ignore[attr-defined]
        sys.argv[1:] = [command.for_hydra.get(argument, argument) for argument in sys.argv[1:]]
        _tell_hydra(arguments, conf_dir)
        if command.is_multirun and not (arguments.multirun or arguments.run):
            sys.argv.append("--multirun")  # Hydra 1.4 rejects a preset's hydra.mode
        return _carried_out(command, hydra_main)
    except (HydraException, Refused) as refused:
        print(without_password(str(refused)), file=sys.stderr)
        return REFUSED


def network_code(path: str) -> NetworkCode:
    """Return the code at a path that a call names; this loads torch."""
    from lockstep.training import network_code as code

    return code.read(path)


class _RunInWorker:
    """The code at a path that a command names. It is run in a worker, so that this process loads no torch."""

    def __init__(self, path: str) -> None:
        from lockstep.execution import aside, pool
        from lockstep.training import network_code as code

        self._code = code.content(path)
        pool.start((*pool.TRAINING, *pool.DRAWING))
        try:
            aside.call(code.add, [self._code])
        except pool.WorkerDied as error:
            raise Refused([f"model.path={path}: can't be run: {error}"]) from error
        code.know(self._code)

    @property
    def source(self) -> str:
        """What identifies it."""
        return self._code.source

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all of its settings, see NetworkCode."""
        from lockstep.execution import aside

        return aside.call(type(self._code).settings, self._code, given)


_run_in_worker = cache(_RunInWorker)


def _typed(arguments: Namespace, is_multirun: bool) -> Typed:
    """Return the command in `sys.argv`, and what its runs need beside their overrides."""
    flags = ("config_path", "config_name", "config_dir")
    words = [f"--{flag.replace('_', '-')}={value}" for flag in flags if (value := getattr(arguments, flag))]
    words += [override for override in arguments.overrides if override.startswith("hydra.searchpath=")]
    if is_multirun and not arguments.multirun:
        words.append("hydra.mode=RUN")  # a preset makes it a sweep
    whole, alone = (shlex.join(map(without_password, some)) for some in (sys.argv[1:], words))
    return Typed(f"{places.program()} {whole}".strip(), f"{places.program()} {alone}".strip())


def _carried_out(command: Command, hydra_main: Callable[[], None]) -> int:
    from lockstep.execution import cluster, pool

    requests = command.requests
    if command.search is not None:
        from lockstep.search.space import corners

        requests = corners(command.search)
    configs = [request.config for request in requests]
    is_dry = any(config.dry_run for config in configs)
    workers.start_workers(command, configs)
    if not is_dry:
        console.print(asked(command, configs), soft_wrap=True)
    try:
        workers.connect(command, configs)
        with stage("loading MLflow"), uncollected():
            from lockstep.sweep import checks, planning
        with stage("reading the data"):
            checks.check_runs(configs)
        workers.check_cluster()
        if is_dry and command.search is not None:
            from lockstep.search.session import show

            show(command.search, configs, command.launcher.n_jobs)
        elif is_dry:
            planning.show_plan(requests, command.launcher.n_jobs)
        else:
            with stage("opening the store"):
                checks.check_store(configs)
            with in_job(command.master):  # Hydra 1.3 resolves ${hydra:...} in a sweep's folder too early
                hydra_main()
    except Exception as error:
        code = failures.report(error)
        if code is None:
            raise
        return code
    finally:
        cluster.disconnect()
        pool.shut_down()
        gc.freeze()  # see uncollected
    return OK


def asked(command: Command, configs: Sequence[RunConfig]) -> str:
    """Return a line that says what was asked for, as soon as the settings are checked."""
    experiments = " and ".join(dict.fromkeys(config.tracking.experiment for config in configs))
    if command.search is not None:
        return f"A search of {command.search.config.n_trials} trials; experiment {experiments}"
    return f"{len(configs)} run{'s' * (len(configs) != 1)}, settings checked; experiment {experiments}"
