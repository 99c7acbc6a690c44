"""A command's pending runs, trained as arrays."""

from collections.abc import Sequence

from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.schema import RunConfig
from lockstep.data import sources
from lockstep.execution import aside, executor, stored_pictures
from lockstep.sweep.entry import Entry
from lockstep.sweep.ledger import Ledger
from lockstep.sweep.planning import plan_of
from lockstep.tracking import saved_model


def train_all(ledger: Ledger, launcher: LauncherConfig, at_once: int | None = None) -> bool:
    """Train all pending runs, or wait until another command has trained them.

    Returns:
        Whether runs are left.
    """
    while (pending := ledger.pending()[:at_once]) and not (launcher.fail_fast and has_failed(ledger)):
        if taken := ledger.claim(pending):
            _train(taken, ledger, launcher)
        elif any(entry.result is None for entry in pending):
            ledger.wait_for_others()
    return bool(pending)


def has_failed(ledger: Ledger) -> bool:
    """Tell whether a run has failed in this command."""
    return any(run.status == "FAILED" and not run.is_stored for run in ledger.results)


def prepare(ledger: Ledger, config: RunConfig) -> None:
    """Prepare a command's end while workers train: draw shared pictures, load what exports a model.

    A failure here is harmless: the command's end tries again, and reports if it fails again.
    """
    if config.tracking.pictures == "best" and ledger.shared is not None:
        aside.begin(stored_pictures.draw_ahead, sources.load(config.data).files(), ledger.shared)
    aside.begin(saved_model.load)


def _train(taken: Sequence[Entry], ledger: Ledger, launcher: LauncherConfig) -> None:
    configs = [entry.config for entry in taken]
    planned = plan_of(configs, launcher.n_jobs)
    tasks = (
        ledger.task([taken[position] for position in array.runs], planned.threads, launcher.exact)
        for array in planned.arrays
    )
    if planned.n_workers > 1:
        prepare(ledger, configs[0])
    loaded = {source.description.digest: source for source in (sources.load(c.data) for c in configs)}
    executor.carry_out(
        lambda: None if launcher.fail_fast and has_failed(ledger) else next(tasks, None),
        list(loaded.values()),
        planned.n_workers,
        ledger.receive,
        placed=ledger.progress.place,
    )
