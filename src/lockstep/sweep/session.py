"""One session: the runs of a command, from validated configs to recorded results."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.parsing import for_shell
from lockstep.config.run_request import RunRequest, Typed
from lockstep.config.schema import RunConfig
from lockstep.data import sources
from lockstep.recovery.interrupts import deferred, recording
from lockstep.recovery.run_folder import RunFolder, folder_name, unfinished
from lockstep.results import majority
from lockstep.results.run_result import RunFailed, RunResult, of_earlier_versions
from lockstep.results.winner import Ranking, Standings
from lockstep.sweep import conclusion, drawing
from lockstep.sweep.arrays import train_all
from lockstep.sweep.checks import store_at
from lockstep.sweep.conclusion import Conclusion
from lockstep.sweep.ledger import Ledger
from lockstep.sweep.names import run_names, sweep_name
from lockstep.sweep.parent import ParentRun, SweepRequest
from lockstep.sweep.planning import identities
from lockstep.terminal import tables
from lockstep.terminal.console import console
from lockstep.terminal.progress import Progress
from lockstep.tracking import links, system_metrics
from lockstep.tracking.address import local_path
from lockstep.tracking.links import verb
from lockstep.tracking.patience import patient
from lockstep.tracking.pending import leftover
from lockstep.tracking.store import Store
from lockstep.tracking.tags import labels
from lockstep.tracking.uploader import Uploader

log = logging.getLogger("lockstep")

CLOSING_SECONDS = 2.0
"""The longest wait of an interrupted command for a store that doesn't answer."""


class NotUploaded(Exception):
    """Some results are not in the store; the message says how to upload them later."""

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: as on the command line, no traceback."""
        return str(self).splitlines()


@dataclass(frozen=True)
class Recording:
    """The results of a command's runs.

    Attributes:
        trouble: the store's error if some results are not in the store, else empty.
        folder: the parent's, if it has one.
        owed: what is left to do for the sweep, None for a run without a sweep.
        are_left: whether runs were not started, because one has failed.
    """

    standings: Standings
    trouble: str
    folder: RunFolder | None
    owed: Conclusion | None
    are_left: bool


@sources.kept()
def carry_out(
    requests: Sequence[RunRequest],
    sweep: Sequence[str] | None,
    launcher: LauncherConfig | None = None,
    folder: Path | None = None,
    at_once: int | None = None,
    typed: Typed | None = None,
) -> Standings:
    """Train and record runs, a sweep's under one parent run. A run that fails stops no other that trains.

    In a sweep, runs that the store has are not trained again, unfinished runs of an earlier command resume
    from their last checkpoint, and runs that another process is training are waited for.

    Args:
        requests: one or more.
        sweep: the sweep's overrides as typed, or None for a run without a sweep.
        launcher: None for its defaults.
        folder: the sweep's folder, for its report.
        at_once: how many runs train at a time, None for all.
        typed: the command, None where no shell was used.

    Raises:
        NotUploaded: if some results are not in the store; the next command, or `deliver`, uploads them.
        RunFailed: if runs were not started because of `launcher.fail_fast`.
    """
    first = requests[0].config.tracking
    store, names = store_at(first.uri), run_names(requests)
    if sweep is None:
        names = [first.name or name for name in names]

    def work(ledger: Ledger) -> bool:
        for request, name in zip(requests, names, strict=True):
            ledger.add(request, name)
        ledger.adopt()
        return train_all(ledger, launcher or LauncherConfig(), at_once)

    runs, *earlier = identities(requests).values()
    parent = None
    if sweep is not None:
        request = _sweep_request(requests, runs, earlier, sweep, store)
        parent = replace(request, folder=folder, command=typed.whole if typed else "")
    epochs = {run: request.config.trainer.epochs for run, request in zip(runs, requests, strict=True)}
    recording = record(store, parent, sum(epochs.values()), work, has_monitor=first.system_metrics)
    standings = recording.standings
    console.print()
    metric = standings.ranking.metric
    console.print(tables.leaderboard(standings.runs, standings.rows, metric, console.width))
    console.print()
    if len(standings.runs) > 1 and metric == "test/accuracy":
        console.print("Ranked by test accuracy, as there is no validation split (data.val_size=0).")
    for said in filter(None, (majority.warning(standings.rows), of_earlier_versions(standings.runs))):
        console.print(said, soft_wrap=True)
    conclude(store, requests[0].config, recording, typed)
    return standings


def _sweep_request(
    requests: Sequence[RunRequest],
    runs: Sequence[tuple[str, str]],
    earlier: Sequence[Sequence[tuple[str, str]]],
    sweep: Sequence[str],
    store: Store,
) -> SweepRequest:
    first = requests[0].config
    key, *earlier_keys = [
        hashlib.sha256(json.dumps(sorted(set(of))).encode()).hexdigest()[:32] for of in (runs, *earlier)
    ]
    return SweepRequest(
        name=first.tracking.name or sweep_name(requests, len(set(runs))),
        overrides=sweep,
        experiment=first.tracking.experiment,
        key=key,
        earlier_keys=earlier_keys,
        earlier_folder=folder_name(
            "sweep", store.address, first.tracking.experiment, *(key for _, key in (runs, *earlier)[-1])
        ),
        labels=labels(first.tracking),
        rerun=first.rerun,
    )


def record(
    store: Store,
    sweep: SweepRequest | None,
    epochs: int,
    work: Callable[[Ledger], bool],
    ranking: Ranking | None = None,
    has_monitor: bool = False,
) -> Recording:
    """Train and record runs by `work`, and record the sweep's true status however it ends.

    Args:
        epochs: the epochs of all runs, as far as known.
        work: adds runs to the ledger, and trains them; returns whether it has left runs, as one has failed.
        ranking: decides which run is best; None for a grid's default.
        has_monitor: whether metrics of the machine are recorded, see `tracking.system_metrics`.
    """
    with recording(), Progress(epochs, sweep is not None) as progress, Uploader(store) as uploader:
        parent = None if sweep is None else ParentRun(store, sweep, uploader)
        ledger = Ledger(store, parent, uploader, progress)
        try:
            with _monitored(store, ledger, sweep is not None) if has_monitor else nullcontext():
                are_left = work(ledger)
            pending = uploader.wait()
            standings = _standings(ledger, ranking)
        except BaseException:
            ledger.close("KILLED")
            with deferred():
                if uploader.wait(CLOSING_SECONDS, in_haste=True):
                    log.warning("the store lacks some results; %s keeps them", unfinished())
            progress.say_last(ledger.saved())
            raise
        owed = None if are_left else _owed(ledger, standings, sweep)
        has_ended = all(run.status == "FINISHED" for run in standings.runs)
        ledger.close("FINISHED" if has_ended else "FAILED", owed)
        pending = uploader.wait(CLOSING_SECONDS, in_haste=True) if pending else uploader.wait()
        standings = _standings(ledger, ranking)  # again, now with each run's MLflow id
        trouble = "; ".join(dict.fromkeys(upload.trouble or "no answer" for upload in pending))
        for upload in uploader.left:
            if upload.is_refused or not pending:
                log.warning("%s", leftover(upload.folder, upload.trouble, upload.description.name))
        folder = parent.folder if parent is not None else None
        return Recording(standings, trouble, folder, owed, are_left)


def _monitored(store: Store, ledger: Ledger, is_sweep: bool) -> AbstractContextManager[None]:
    """Record metrics of the machine with the sweep's parent, or with a run without a sweep."""

    def run_id() -> str | None:
        of_one = (entry.run_id for entry in ledger.pending())
        return ledger.parent_run_id if is_sweep else next(of_one, None)

    return system_metrics.recorded(store, run_id)


def _owed(ledger: Ledger, standings: Standings, sweep: SweepRequest | None) -> Conclusion | None:
    if sweep is None or sweep.folder is None:
        return None
    return Conclusion.of(ledger.ended, standings, sweep.command, sweep.folder, sweep.scales)


def _standings(ledger: Ledger, ranking: Ranking | None) -> Standings:
    runs = tuple(ledger.results)
    return Standings(runs, ranking or Ranking.of(runs), ledger.parent_run_id)


def conclude(store: Store, config: RunConfig, recording: Recording, typed: Typed | None = None) -> None:
    """Do what a sweep owes once its runs are in the store, see Conclusion, and print the links.

    Args:
        config: any run's config.
        typed: the command, None where no shell was used.

    Raises:
        NotUploaded: if some results are not in the store.
        RunFailed: if runs were not started because one has failed.
    """
    deliver = verb("deliver", unfinished())
    if recording.trouble:
        raise NotUploaded(
            f"Some results could not be uploaded; the store says: {recording.trouble}\n"
            f"They are kept in {unfinished()}; once the store takes them, upload them with\n"
            f"  {deliver}"
        )
    if recording.are_left:
        runs = recording.standings.runs
        failed = next(run for run in runs if run.status == "FAILED" and not run.is_stored)
        raise RunFailed(
            f"{failed.name}: {failed.reason}\n"
            "After that, no more runs were started (hydra.launcher.fail_fast=true); the same command without"
            " it trains the others"
        )
    failures: list[str] = []
    if recording.folder is not None and recording.folder.owes:
        failures = conclusion.complete(store, recording.folder)
    elif (run_id := recording.standings.run_id) is not None and recording.owed is not None:
        failures = conclusion.carry_out(store, run_id, recording.owed)
    winner = recording.standings.winner
    if recording.owed is None and winner is not None and config.tracking.pictures == "best":
        best = winner.representative
        drawing.draw_winner(store, str(best.run_id), best.name)
    if typed is not None and typed.alone and winner is not None and len(recording.standings.runs) > 1:
        alone = f"{typed.alone} {for_shell(winner.representative.overrides)}"
        console.print(f"To train the best run alone: {alone}", soft_wrap=True)
    experiment_id = patient(store.experiment_id)(config.tracking.experiment)
    if recording.owed is None and recording.standings.run_id is None:
        _print_run(store, experiment_id, recording.standings.runs[0], config.tracking.pictures != "none")
    else:
        view = ""
        if recording.standings.run_id is not None:
            view = links.view_of(
                patient(store.client.get_experiment)(experiment_id).tags, recording.standings.run_id
            )
        address = links.how_to_open(store.uri, links.view_link(store.uri, experiment_id, view))
        console.print(f"Compare the runs in MLflow: {address}", soft_wrap=True)
    if failures:
        listed = "\n".join(f"  {failure}" for failure in failures)
        raise NotUploaded(
            f"All runs are in the store, but of their sweep it lacks something:\n{listed}\n"
            f"Give the same command again: it trains nothing, and does the rest. So does\n  {deliver}"
        )


def _print_run(store: Store, experiment_id: str, run: RunResult, has_pictures: bool) -> None:
    """Print where a run without a sweep is, and its pictures."""
    recorded = patient(store.client.get_run)(str(run.run_id))
    folder = local_path(recorded.info.artifact_uri)
    if has_pictures and folder is not None:
        console.print(f"Its pictures: {folder}", soft_wrap=True)
    address = links.how_to_open(store.uri, links.run_link(store.uri, experiment_id, str(run.run_id)))
    console.print(f"The run in MLflow: {address}", soft_wrap=True)
