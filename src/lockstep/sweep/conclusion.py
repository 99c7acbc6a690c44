"""What a sweep owes once its runs have ended: its members, winner, description, report, and model.

It is recorded in the parent's folder before the parent ends, and carried out once the store has the runs. The
folder stays until all is done: after a kill, or without a store, the same command or `deliver` does the rest.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar
from zipfile import ZipFile

from lockstep.recovery.run_folder import SHARED, RunFolder, kept_weights
from lockstep.recovery.seal import Damaged, Unreadable
from lockstep.results.winner import Ranking, Standings
from lockstep.sweep import drawing
from lockstep.sweep.entry import Entry
from lockstep.terminal.console import console
from lockstep.tracking import logged_model, sweeps, ui
from lockstep.tracking.errors import message_of
from lockstep.tracking.patience import patient
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.tracking.tags import RUN_KEY, labels

log = logging.getLogger("lockstep")
T = TypeVar("T")


@dataclass(frozen=True)
class Member:
    """A run of a sweep, as the sweep asked for it.

    Attributes:
        run_id: its MLflow run, None if it is not known yet.
        token: finds its MLflow run, None where the id is known.
    """

    name: str
    experiment: str
    run_id: str | None
    token: str | None

    @classmethod
    def of(cls, entry: Entry) -> "Member":
        """Return the member that an entry asks for."""
        upload = entry.first.upload
        token = None if upload is None else upload.description.token
        return cls(entry.name, entry.config.tracking.experiment, entry.first.run_id, token)


@dataclass(frozen=True)
class Conclusion:
    """What is left to do for a sweep whose runs have ended.

    Attributes:
        members: its runs, in the order in which they were asked for.
        ranking: see Ranking.to_json.
        winner: the position of the winner's representative, None without a winner.
        repeats: the positions of the winner's repeats.
        command: that trained it, quoted for a shell; empty where no shell was used.
        folder: the sweep's, for its report.
        with_page: whether it has a report.
        draws: whether only its winner has pictures.
        scales: see SweepRequest; None in what an earlier version owes.
        name: that the user gave it, or empty.
        labels: the tags that the user gave.
    """

    members: tuple[Member, ...]
    ranking: str
    winner: int | None
    repeats: tuple[int, ...]
    command: str
    folder: str
    with_page: bool
    draws: bool
    scales: Mapping[str, str] | None = None
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        ended: Sequence[Entry],
        standings: Standings,
        command: str,
        folder: Path,
        scales: Mapping[str, str],
    ) -> "Conclusion":
        """Return what the sweep of these entries owes; their runs have ended, in these standings."""
        position: dict[str, int] = {}
        for place, entry in enumerate(ended):
            position.setdefault(entry.run_key, place)
        best, tracking = standings.winner, ended[0].config.tracking
        return cls(
            tuple(map(Member.of, ended)),
            standings.ranking.to_json(),
            position[best.representative.run_key] if best else None,
            tuple(position[run.run_key] for run in best.runs) if best else (),
            command,
            str(folder),
            with_page=tracking.pictures != "none",
            draws=tracking.pictures == "best",
            name=tracking.name or "",
            labels=labels(tracking),
            scales=scales,
        )

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> "Conclusion":
        """Return what `to_bytes` returned.

        Raises:
            Unreadable: if another version wrote it.
        """
        try:
            read = json.loads(text)
            members = tuple(Member(**member) for member in read.pop("members"))
            return cls(members=members, repeats=tuple(read.pop("repeats")), **read)
        except (ValueError, TypeError, KeyError) as error:
            raise Unreadable(f"what its sweep owes can't be read: {error!r}") from error


def carry_out(store: Store, run_id: str, owed: Conclusion, shared: Path | None = None) -> list[str]:
    """Record a sweep's members and winner, draw and describe it, make its report, and log the winner's model.

    Every step may be repeated. A store that does not answer is asked again, for PATIENCE_SECONDS.

    Args:
        run_id: the parent's MLflow run.
        shared: see `draw_ahead`.

    Returns:
        A line for each step that failed.
    """
    failures: list[str] = []

    def attempt(what: str, step: Callable[[], T]) -> T | None:
        try:
            return patient(step)()
        except Exception as error:  # whatever the store answers; the other steps don't need this one
            failures.append(f"{what}: {message_of(error)}")
            return None

    ids = attempt("not recorded which runs belong to it and which won", lambda: _record(store, run_id, owed))
    if ids is None:
        return failures
    best = None if owed.winner is None else ids[owed.winner]
    if best is not None and shared is not None:
        attempt("no weights of the best run", lambda: _keep_weights(store, best, shared))
    if best is not None and owed.winner is not None and owed.draws:
        name = owed.members[owed.winner].name
        attempt("no pictures of the best run", lambda: drawing.draw_winner(store, best, name, shared))
    report = cache(lambda: attempt("no report", lambda: _report(store, run_id, owed)))
    model = None
    if best is not None:
        # A worker exports the model while this process makes the report.
        model = attempt("no model of the best run", lambda: logged_model.log_model(store, best, report))
    if page := report():
        console.print(f"Report: {page}", soft_wrap=True)
    if model:
        console.print(f"The best run's model: {model}", soft_wrap=True)
    return failures


def _record(store: Store, run_id: str, owed: Conclusion) -> list[str]:
    """Record a sweep's members and winner; return the members' MLflow runs."""
    ids = [member.run_id or store.find(member.experiment, str(member.token)) for member in owed.members]
    known = [run for run in ids if run is not None]
    if len(known) < len(ids):
        missing = owed.members[ids.index(None)].name
        raise LookupError(f"{missing} is not in the store")
    names: dict[str, list[str]] = {}
    for run, member in zip(known, owed.members, strict=True):
        names.setdefault(run, []).append(member.name)
    experiments = list(dict.fromkeys(member.experiment for member in owed.members))
    Recorded(store.client, run_id).label(owed.name, owed.labels)
    ranking = Ranking.from_json(owed.ranking)
    winner = known[owed.winner] if owed.winner is not None else None
    repeats = [known[position] for position in owed.repeats]
    sweeps.record(store, run_id, names, experiments, ranking, winner, repeats, owed.command, owed.scales)
    return known


def _keep_weights(store: Store, best: str, shared: Path) -> None:
    """Upload the winner's weights with `tracking.weights=best`, where this sweep has trained it.

    Raises:
        Damaged: if they are not what was written.
    """
    folder = kept_weights(shared, store.client.get_run(best).data.tags[RUN_KEY])
    for file in folder.rglob("*.pt"):
        with ZipFile(file) as archive:
            if archive.testzip() is not None:
                raise Damaged(f"{file} is damaged; train the run again, with rerun=true")
    if folder.exists():
        Recorded(store.client, best).artifacts(folder)


def _report(store: Store, run_id: str, owed: Conclusion) -> Path | None:
    """Describe a sweep in the store, and make its report if it has one."""
    from lockstep.report import stored, wording

    sweep = sweeps.read(store, run_id)
    sweep = ui.describe(store, sweep, wording.sentence(sweep))
    return stored.write(store, sweep, Path(owed.folder)) if owed.with_page else None


def complete(store: Store, folder: RunFolder) -> list[str]:
    """Do what a sweep owes, and remove its parent's folder if nothing is left.

    Args:
        folder: claimed by this process; its runs and its parent's end are in the store.

    Returns:
        A line for each step that failed.

    Raises:
        Unreadable: if another version wrote what it owes, or that is damaged.
    """
    shared = folder.path / SHARED
    has_shared = shared if shared.exists() else None
    failures = carry_out(store, str(folder.read().run_id), Conclusion.from_bytes(folder.owed()), has_shared)
    if not failures:
        folder.remove()
    folder.release()
    return failures
