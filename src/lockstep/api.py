"""Sweeps and searches from Python: the command line's checks, store and resuming, without a command.

Nothing of the caller's process is kept: no signal handlers, no working folder, no handlers of logs.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lockstep.cli import command as cli
from lockstep.cli import workers
from lockstep.config import places
from lockstep.config.command import Command
from lockstep.config.compose import compose
from lockstep.config.errors import Refused, without_password
from lockstep.config.hydra_settings import in_job
from lockstep.config.run_request import Typed
from lockstep.config.schema import RunConfig
from lockstep.execution import cluster, pool
from lockstep.recorded import Run, Sweep
from lockstep.recovery import claims
from lockstep.results.winner import Standings
from lockstep.search import session as searching
from lockstep.search.space import corners
from lockstep.sweep import checks
from lockstep.sweep import session as sweeping
from lockstep.sweep.session import NotUploaded
from lockstep.terminal.console import console, shown_log, stage
from lockstep.tracking import sweeps
from lockstep.tracking.address import default_uri
from lockstep.tracking.ids import resolve
from lockstep.tracking.recorded_run import result_of
from lockstep.tracking.store import existing_store
from lockstep.tracking.tags import KIND

_in_use = threading.Lock()


def sweep(overrides: Sequence[str], config_dir: str | Path | None) -> Sweep:
    """Carry out `lockstep.sweep`."""
    return _called("sweep", overrides, config_dir, overrides)


def search(overrides: Sequence[str], settings: Mapping[str, Any], config_dir: str | Path | None) -> Sweep:
    """Carry out `lockstep.search`."""
    given = {key: value for key, value in settings.items() if value is not None}
    set_ = [f"hydra.sweeper.{key}={value}" for key, value in given.items()]
    return _called("search", ["hydra/sweeper=search", *overrides, *set_], config_dir, overrides, given)


def load(id_: str) -> Sweep | Run:
    """Carry out `lockstep.load`."""
    store = existing_store(default_uri())
    run = store.client.get_run(resolve(store, id_))
    kind = run.data.tags.get(KIND)
    if kind == "run":
        return Run(store, result_of(run))
    if kind != "sweep":
        raise Refused([f"{run.info.run_id}: not a run of Lockstep"])
    return Sweep(store, sweeps.read(store, run.info.run_id))


def _called(
    function: str,
    arguments: Sequence[str],
    config_dir: str | Path | None,
    overrides: Sequence[str],
    settings: Mapping[str, Any] | None = None,
) -> Sweep:
    """Carry out a call; what its errors say shows no password."""
    words = [*map(json.dumps, overrides), *(f"{key}={value!r}" for key, value in (settings or {}).items())]
    typed = Typed(without_password(f"lockstep.{function}({', '.join(words)})"), alone="")
    try:
        with _one_at_a_time(), _at_root(), shown_log():
            return _carried_out(arguments, config_dir, typed)
    except Refused as refused:
        raise Refused([without_password(problem) for problem in refused.problems]) from None
    except NotUploaded as failed:
        raise NotUploaded(without_password(str(failed))) from None


def _carried_out(arguments: Sequence[str], config_dir: str | Path | None, typed: Typed) -> Sweep:
    if config_dir is not None and not Path(config_dir).is_dir():
        raise Refused([f"config_dir={config_dir}: not a folder"])
    folder = None if config_dir is None else Path(config_dir).absolute()
    command = compose(
        places.conf(), arguments, multirun=True, config_dir=folder, read_network=cli.network_code
    )
    requests = command.requests if command.search is None else corners(command.search)
    configs = [request.config for request in requests]
    _check_is_for_python(command, configs)
    checks.store_at.cache_clear()  # the store may have been moved or deleted since the last call
    try:
        if workers.has_workers(command, configs):
            workers.start_workers(command, configs)
        console.print(cli.asked(command, configs), soft_wrap=True)
        workers.connect(command, configs)
        with stage("reading the data"):
            checks.check_runs(configs)
        workers.check_cluster()
        with stage("opening the store"):
            checks.check_store(configs)
        with in_job(command.master):
            standings = _trained(replace(command, typed=typed))
    finally:
        cluster.disconnect()
        pool.shut_down()
        claims.release_all()
    return Sweep.of(checks.store_at(configs[0].tracking.uri), standings)


def _trained(command: Command) -> Standings:
    """Train and record what a command asks for."""
    folder = Path(str(command.master.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    if command.search is not None:
        return searching.carry_out(command, folder).standings
    return sweeping.carry_out(
        command.requests,
        command.overrides,
        command.launcher,
        folder,
        command.max_batch_size,
        command.typed,
    )


def _check_is_for_python(command: Command, configs: Sequence[RunConfig]) -> None:
    """Refuse what only the command can do: use other plugins than Lockstep's, or plan without training."""
    settings = command.master.hydra
    problems = [
        f"hydra/{kind}={settings.runtime.choices[f'hydra/{kind}']}: can be used on the command line only"
        for kind in ("launcher", "sweeper")
        if not str(settings[kind]._target_).startswith("hydra_plugins.lockstep_")
    ]
    if any(config.dry_run for config in configs):
        problems.append("dry_run=true: can be used on the command line only")
    if problems:
        raise Refused(problems)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Refuse a call from a second thread: a sweep uses all cores, and its workers are this process's."""
    if not _in_use.acquire(blocking=False):
        raise Refused(["another thread of this process trains a sweep; wait for it"])
    try:
        yield
    finally:
        _in_use.release()


@contextmanager
def _at_root() -> Iterator[None]:
    """Keep the root where it is now, as conf/ and workers read it from the environment."""
    before = os.environ.get(places.ROOT)
    places.settle()
    try:
        yield
    finally:
        if before is None:
            del os.environ[places.ROOT]
        else:
            os.environ[places.ROOT] = before
