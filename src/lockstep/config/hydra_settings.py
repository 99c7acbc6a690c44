"""Settings of Hydra itself (`hydra.*`), checked before Hydra starts, which would stop with a traceback."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from lockstep.config.errors import holds_password

MOST_WORKERS = 10_000
"""The most worker processes. Far larger numbers don't fit in an int64."""


@contextmanager
def in_job(composed: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` resolve to a job's settings."""
    config = HydraConfig.instance()
    before = config.cfg
    config.set_config(composed)
    try:
        yield
    finally:
        config.cfg = before


def problems_of(job: DictConfig, mode: str) -> list[str]:
    """Return a message for each setting with which Hydra can't start a job.

    Args:
        job: the job's config with its `hydra` node, which is changed.
        mode: `run`, or `sweep` for a job of a sweep.
    """
    try:
        with in_job(job):
            plugins = _unusable_plugins(job) if mode == "sweep" else []
            return plugins or _unusable_callbacks(job) or _unusable_files(job, mode)
    except OmegaConfBaseException as error:
        return [f"{error.full_key or 'hydra'}: {str(error).splitlines()[0]}"]


def _unusable_plugins(job: DictConfig) -> list[str]:
    problems = []
    for kind, plugin in (("sweeper", Sweeper), ("launcher", Launcher)):
        target = OmegaConf.select(job, f"hydra.{kind}._target_")
        found = {f"{cls.__module__}.{cls.__qualname__}" for cls in Plugins.instance().discover(plugin)}
        if target not in found:
            problems.append(f"hydra.{kind}._target_={target}: not one of {', '.join(sorted(found))}")
    size = OmegaConf.select(job, "hydra.sweeper.max_batch_size")
    if isinstance(size, int) and size < 1:
        problems.append(f"hydra.sweeper.max_batch_size={size}: needs at least one run; null for all at once")
    n_jobs = OmegaConf.select(job, "hydra.launcher.n_jobs")
    if n_jobs == 0:
        problems.append("hydra.launcher.n_jobs=0: needs at least one worker; -1 for one per core")
    if isinstance(n_jobs, int) and abs(n_jobs) > MOST_WORKERS:
        problems.append(f"hydra.launcher.n_jobs={n_jobs}: allowed: up to {MOST_WORKERS:,} workers")
    return problems


def _unusable_callbacks(job: DictConfig) -> list[str]:
    """Return a message for each callback that can't be found; what a user has typed may be anything."""
    callbacks: Any = OmegaConf.to_container(job.hydra.callbacks or OmegaConf.create(), resolve=True)
    return [
        f"hydra.callbacks.{name}={settings}: {reason}"
        for name, settings in callbacks.items()
        if (reason := _why_not_found(settings.get("_target_") if isinstance(settings, dict) else None))
    ]


def _unusable_files(job: DictConfig, mode: str) -> list[str]:
    """Return a message if Hydra can't make a job's folder, or the files that it writes there."""
    folder = Path(str(job.hydra[mode].dir)).absolute()
    if reason := _why_not(folder):
        return [f"hydra.{mode}.dir={folder}: {reason}"]
    if mode == "sweep":
        subdir, folder = str(job.hydra.sweep.subdir), folder / str(job.hydra.sweep.subdir)
        if reason := _why_not(folder):
            return [f"hydra.sweep.subdir={subdir}: {reason}"]
    made = [folder, *folder.parents]
    if (subdir := job.hydra.output_subdir) is not None:
        if reason := _why_not(folder / str(subdir)):
            return [f"hydra.output_subdir={subdir}: {reason}"]
        made.append(folder / str(subdir))
    with read_write(job.hydra), open_dict(job.hydra.runtime):
        job.hydra.runtime.output_dir = str(folder)
    settings: Any = OmegaConf.to_container(job.hydra.job.env_set, resolve=True)  # raises what Hydra would
    secret = [
        f"hydra.job.env_set.{name}={value}" for name, value in settings.items() if holds_password(value)
    ]
    if secret:
        return [f"{text}: holds a password, which Hydra would write to its files" for text in secret]
    return _unusable_log(job, "hydra_logging", made) or _unusable_log(job, "job_logging", made)


def _unusable_log(job: DictConfig, key: str, made: Collection[Path]) -> list[str]:
    """Return a message if Hydra can't set up a log; `made` are folders that it will have made by then."""
    settings: Any = OmegaConf.to_container(job.hydra[key], resolve=True)
    handlers: dict[str, Any] = (settings or {}).get("handlers") or {}
    for name, handler in handlers.items():
        if "filename" in handler:
            folder = Path(str(handler["filename"])).absolute().parent
            if folder not in made and not folder.is_dir():
                return [f"hydra.job.name={job.hydra.job.name}: no log can be written at {folder}"]
            if reason := _why_not_found(handler.get("class")):
                return [f"hydra.{key}.handlers.{name}.class={handler.get('class')}: {reason}"]
            handlers[name] = {"class": "logging.StreamHandler", "level": handler.get("level", "NOTSET")}
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_log(settings and OmegaConf.create(settings), job.hydra.verbose)
    except Exception as error:  # of the user's own handlers and formatters, anything
        cause = f": {error.__cause__}" if error.__cause__ else ""
        return [f"hydra.{key}, hydra.verbose={job.hydra.verbose}: {str(error) or repr(error)}{cause}"]
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
    return []


def _why_not_found(target: Any) -> str:
    """Return why Hydra will not find a target, empty if it will. It is Hydra's own, or was typed."""
    if not isinstance(target, str):
        return "names no class"
    try:
        resolve_name(target)
    except Exception as error:  # whatever importing it raises
        return " ".join(str(error).split()) or repr(error)
    return ""


def _why_not(folder: Path) -> str | None:
    """Return why a folder can't be made, None if it can. Only making one tells, for example below /proc."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except (OSError, ValueError) as error:  # too long, or with a null character
        return getattr(error, "strerror", None) or str(error)
    try:
        with TemporaryDirectory(dir=there, prefix=".lockstep-") as probe:
            try:
                (Path(probe) / folder.relative_to(there)).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                return error.strerror
    except OSError:
        return f"{there} is not a folder that can be written to"
    return None
