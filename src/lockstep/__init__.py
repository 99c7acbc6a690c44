"""Lockstep: train the runs of a sweep together, record every one in MLflow.

From Python, as on the command line: `lockstep.sweep`, `lockstep.search`, `lockstep.load`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The packages of these names are loaded first: loaded later, they would take the functions' places. They are
# still found by `from lockstep.sweep import session`.
import lockstep.search
import lockstep.sweep  # noqa: F401
from lockstep._version import __version__
from lockstep.config.errors import Refused

if TYPE_CHECKING:
    from lockstep.recorded import Run, Sweep
    from lockstep.results.run_result import RunFailed
    from lockstep.sweep.session import NotUploaded

__all__ = ["NotUploaded", "Refused", "Run", "RunFailed", "Sweep", "__version__", "load", "search", "sweep"]

_LATE = {
    "NotUploaded": "lockstep.sweep.session",
    "Run": "lockstep.recorded",
    "RunFailed": "lockstep.results.run_result",
    "Sweep": "lockstep.recorded",
}


def sweep(*overrides: str, config_dir: str | Path | None = None) -> "Sweep":
    """Train all combinations of values; `python run.py -m <overrides>` does the same, and shares its runs.

    Runs that the store has are not trained again, and an interrupted sweep resumes: call it again. A run that
    fails doesn't stop the others: its `status` is FAILED.

    Args:
        overrides: as on the command line: `"optim.lr=0.1,0.01"`, `"experiment=explore"`.
        config_dir: a folder of your own with more options, as `--config-dir`.

    Raises:
        Refused: listing every bad key and value, before anything has started.
        NotUploaded: if some results are not in the store; the message says how to upload them.
        RunFailed: with `hydra.launcher.fail_fast=true`, if runs were not started because one has failed.
    """
    with _without_notice():
        from lockstep import api

    return api.sweep(overrides, config_dir)


def search(
    *overrides: str, n_trials: int | None = None, config_dir: str | Path | None = None, **settings: Any
) -> "Sweep":
    """Search: start many networks, stop most of them early. See docs/sweeps.md; call it again to resume.

    Args:
        overrides: as on the command line: `"optim.lr=interval(0.01, 0.5)"`, `"data.val_size=10000"`.
        n_trials: trials in all, 64 by default. More than an earlier call had extends its search.
        config_dir: as for `sweep`.
        settings: `timeout`, `sampler`, `pruner` and so on: what `hydra.sweeper.` has on the command line.

    Raises:
        Refused, NotUploaded, RunFailed: as `sweep`.
    """
    with _without_notice():
        from lockstep import api

    return api.search(overrides, {"n_trials": n_trials, **settings}, config_dir)


def load(id: str) -> "Run | Sweep":
    """Return the run or sweep with this MLflow run id, or the only one whose id starts with it.

    It is looked for in the store of run.py's commands, or at MLFLOW_TRACKING_URI if that is set.

    Raises:
        Refused: if there is none, or several.
    """
    with _without_notice():
        from lockstep import api

    return api.load(id)


@contextmanager
def _without_notice() -> Iterator[None]:
    """Leave out a notice of tqdm, which MLflow loads, that a notebook lacks widgets."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        yield


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
