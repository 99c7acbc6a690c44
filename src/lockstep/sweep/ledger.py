"""What becomes of the runs of a command → their outcomes, the terminal, the way to the store."""

import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lockstep.config.job import Job
from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.execution.task import Task
from lockstep.recovery.interrupts import deferred
from lockstep.recovery.journal import Ended, Event
from lockstep.recovery.run_folder import Description, Folder, folder_name, folders, unfinished
from lockstep.results.history import History, Status
from lockstep.results.run_result import Outcome
from lockstep.results.winner import Repeats
from lockstep.terminal.progress import Progress
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import REASON, Store
from lockstep.tracking.uploader import Delivery, Parcel, conclusion
from lockstep.training import artifacts, networks
from lockstep.training.loop import TrainedRun
from lockstep.training.random_streams import generator

log = logging.getLogger("lockstep")

WAIT_SECONDS = 0.5
"""How often runs that another process trains are looked at."""


@dataclass(frozen=True)
class Sweep:
    """What the parent of a command's runs is about.

    Attributes:
        key: the same for the same sweep: its parent goes on.
        run_id: the MLflow run that it goes on with though all that it had to do was done, or None.
    """

    name: str
    overrides: Sequence[str]
    experiment: str
    key: Sequence[str]
    run_id: str | None = None


class Recorder:
    """Knows of each run of a command how far it is, and what is left to do.

    Args:
        sweep: None for a run without one, which always trains from its start.
    """

    def __init__(self, store: Store, sweep: Sweep | None, delivery: Delivery, progress: Progress) -> None:
        self._store, self._sweep = store, sweep
        self._delivery, self._progress = delivery, progress
        self._jobs: list[Job] = []
        self._names: list[str] = []
        self._keys: list[str] = []
        self._folders: list[Folder] = []
        self._same_as: list[int] = []
        self._of_folder: dict[Path, int] = {}
        self._histories: list[History] = []
        self._outcomes: dict[int, Outcome] = {}
        self._stored: dict[str, str | None] = {}  # MLflow runs found in the store, and their parents
        self._parent: Folder | None = None
        self._taken: set[int] = set()
        self._of_search: set[int] = set()
        self._filled_before: dict[str, bool] = {}  # whether experiments had runs when a search began
        self._has_waited = False
        self._drawn_ahead: Path | None = None

    def add(self, job: Job, name: str, of_search: Sequence[str] = ()) -> int:
        """One more run; equal ones count as one.

        Args:
            of_search: what tells a run that may be given up on the way from all others, none for one that
                is trained to its end.

        Returns:
            What the run is called from now on: its number.
        """
        k, config = len(self._jobs), job.config
        if of_search:
            self._of_search.add(k)
        key = config.run_key(datasets.load(config.data).digest)
        if self._sweep is None:
            name_of_folder = f"single-{uuid.uuid4().hex}"
        else:
            name_of_folder = folder_name(
                "run", self._store.address, config.tracking.experiment, [key, *of_search]
            )
        path = unfinished() / name_of_folder
        self._jobs.append(job)
        self._names.append(name)
        self._keys.append(key)
        self._folders.append(Folder(path))
        self._histories.append(History())
        self._same_as.append(self._of_folder.setdefault(path, k))
        if self._same_as[k] == k:
            self._progress.add(k, name, config)
        return k

    def adopt(self) -> None:
        """What processes that are gone have left: this command's own parent, and runs nobody goes on with."""
        if self._sweep is not None and self._parent is None:
            parent = self._parent_folder(self._sweep)
            if parent.exists() and parent.claim():
                self._set_parent(parent)
        mine = {*self._of_folder, self._parent and self._parent.path}
        for folder in folders(unfinished()) if unfinished().exists() else ():
            if folder.path not in mine and folder.claim():
                self._delivery.take_over(folder)

    def waiting(self) -> list[int]:
        """Runs that have not ended, of equal ones the first."""
        return [k for k in range(len(self._jobs)) if self._same_as[k] == k and k not in self._outcomes]

    def take_up(self, which: Iterable[int]) -> list[int]:
        """Those of some runs that this process is to train: no other one has them, nor has the store."""
        claimed = [k for k in which if self._folders[k].claim()]
        # Asked when the runs are claimed: until then another process might still bring a result.
        filled: dict[str, bool] = {}
        taken = []
        for k in claimed:
            # A search's trials are nobody else's: what there was at its start is enough.
            known = self._filled_before if k in self._of_search else filled
            if self._sweep is not None and not self._folders[k].exists() and self._is_stored(k, known):
                self._folders[k].release()
            elif not self._go_on(k):
                taken.append(k)
        return taken

    def wait_for_others(self) -> None:
        """Another process trains what is left: give it a moment."""
        if not self._has_waited:
            log.info("%d runs are being trained by another command; waiting for it", len(self.waiting()))
        self._has_waited = True
        time.sleep(WAIT_SECONDS)

    def _is_stored(self, k: int, filled: dict[str, bool]) -> bool:
        """Whether the store has the run's result already.

        Args:
            filled: experiments, and whether they have any runs, as far as that was asked.
        """
        config = self._jobs[k].config
        experiment = config.tracking.experiment
        if experiment not in filled:
            filled[experiment] = not self._store.is_empty(experiment)
        if not filled[experiment]:
            return False
        run = None if config.rerun else self._store.result(experiment, self._keys[k])
        if run is None:
            return False
        self._stored[run.info.run_id] = run.data.tags.get("mlflow.parentRunId")
        reason = run.data.tags.get(REASON, "")
        self._outcomes[k] = Outcome(
            config,
            self._names[k],
            self._jobs[k].overrides,
            run.info.status,
            run.data.metrics,
            reason,
            stored=True,
        )
        self._progress.end(k, "stored", self._outcomes[k].objective)
        return True

    def _go_on(self, k: int) -> bool:
        """Take the run's folder up, a new one or an earlier process's; whether there all is done."""
        folder, config, job = self._folders[k], self._jobs[k].config, self._jobs[k]
        is_new = not folder.exists()
        if self._sweep is not None and self._parent is None:
            parent = self._parent_folder(self._sweep)
            if not parent.claim():  # another process's, which trains the same just now
                parent = Folder(parent.path.with_name(f"{parent.path.name}-{uuid.uuid4().hex[:8]}"))
                parent.claim()
            self._set_parent(parent)
        if is_new:
            description = Description(
                kind="run" if self._parent else "single",
                name=self._names[k],
                overrides=list(job.overrides),
                uri=self._store.address,
                experiment=config.tracking.experiment,
                config=config.model_dump(mode="json", exclude={"tracking": {"uri"}}),
                parent=self._parent.path.name if self._parent else None,
            )
            folder.create(description)
        self._delivery.add(Parcel(folder, folder.read(), is_new))
        self._taken.add(k)
        with folder.in_training():  # so that no other process's worker adds to it
            history, ended = folder.history()
        self._histories[k] = history
        self._progress.resume(k, history.epochs)
        if history.marks:
            self._delivery.news(folder.path.name, history)
        if ended is not None:
            self._end(k, ended)
        return ended is not None

    def _parent_folder(self, sweep: Sweep) -> Folder:
        """The same for the same sweep."""
        return Folder(unfinished() / folder_name("sweep", self._store.address, sweep.experiment, sweep.key))

    def _set_parent(self, folder: Folder) -> None:
        is_new = not folder.exists()
        if is_new:
            assert self._sweep is not None
            description = Description(
                kind="sweep",
                name=self._sweep.name,
                overrides=list(self._sweep.overrides),
                uri=self._store.address,
                experiment=self._sweep.experiment,
                run_id=self._sweep.run_id,
            )
            folder.create(description)
        self._parent = folder
        self._delivery.add(Parcel(folder, folder.read(), is_new))
        self._delivery.news(folder.path.name)

    @property
    def shared(self) -> Path:
        """Where what runs share is kept while they train."""
        folder = self._parent or self._folders[0]
        path = folder.path / "shared"
        path.mkdir(exist_ok=True)
        return path

    def job(self, job: int) -> Job:
        """What was added under that number."""
        return self._jobs[job]

    def task(self, jobs: Sequence[int], threads: int, exact: bool, pause_at: int | None = None) -> Task:
        """Runs that were taken up, as one array."""
        self._progress.array(jobs)
        configs = tuple(self._jobs[k].config for k in jobs)
        return Task(
            tuple(jobs),
            configs,
            tuple(self._names[k] for k in jobs),
            tuple(self._folders[k].path for k in jobs),
            datasets.load(configs[0].data).digest,
            self.shared,
            threads,
            exact,
            pause_at,
        )

    def is_unfinished(self, job: int) -> bool:
        """Whether there is something of a run that the store lacks."""
        return self._folders[job].exists()

    def know(self, job: int, outcome: Outcome) -> None:
        """What became of a run in an earlier command."""
        self._outcomes[job] = outcome
        self._progress.end(job, "stored", outcome.objective)

    @property
    def parent_run_id(self) -> str | None:
        """The parent's MLflow run, once there is one."""
        return self._parent.read().run_id if self._parent is not None else None

    def of_other_sweeps(self, parent: str) -> list[str]:
        """MLflow runs that are results of this command, but not children of its parent."""
        return [run_id for run_id, theirs in self._stored.items() if theirs != parent]

    def history(self, job: int) -> History:
        """A run's, as far as it goes."""
        return self._histories[job]

    def outcome(self, job: int) -> Outcome | None:
        """What became of a run, once it has ended."""
        return self._outcomes.get(self._same_as[job])

    @deferred()
    def hear(self, job: int, event: Event) -> None:
        """An epoch of a run that trains, or its end."""
        if isinstance(event, Ended):
            self._end(job, event)
            return
        self._histories[job].add(event)
        ends = event.diverged or self._histories[job].epochs == self._jobs[job].config.trainer.epochs
        if not ends:  # at its end, what is left goes to the store
            self._delivery.news(self._folders[job].path.name, self._histories[job])
        self._progress.epoch(job, self._histories[job])

    @deferred()
    def prune(self, job: int) -> None:
        """Give up a run that has paused: what there is of it goes to the store, and it is FINISHED."""
        folder, config, history = self._folders[job], self._jobs[job].config, self._histories[job]
        shutil.rmtree(folder.artifacts, ignore_errors=True)
        folder.artifacts.mkdir()
        artifacts.write_history(config, history, folder.artifacts)
        ended = Ended(pruned_at=history.epochs)
        folder.journal.append(ended)
        self._end(job, ended)

    def _end(self, job: int, ended: Ended) -> None:
        history, name = self._histories[job], self._names[job]
        status, tags = conclusion(history, ended)
        if ended.reason:
            log.error("%s failed\n%s", name, ended.trace or ended.reason)
        self._outcomes[job] = Outcome(
            self._jobs[job].config,
            name,
            self._jobs[job].overrides,
            status,
            {**history.summary(), **ended.metrics},
            tags.get(REASON, ""),
            pruned_at=ended.pruned_at,
        )
        state = status.lower() if ended.pruned_at is None else f"given up after epoch {ended.pruned_at}"
        self._progress.end(job, state)
        self._delivery.news(self._folders[job].path.name, history, status, tags, ended.metrics)

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of the runs, in the order of the jobs."""
        of_all = [(name, self.outcome(k)) for k, name in enumerate(self._names)]
        return [replace(outcome, name=name) for name, outcome in of_all if outcome is not None]

    @deferred()
    def close(self, status: Status) -> None:
        """The command is over: so is its parent run; runs that have not ended are KILLED."""
        for k in sorted(self._taken - self._outcomes.keys()):
            if self._histories[k].marks:  # else the store knows nothing of it
                self._delivery.news(self._folders[k].path.name, self._histories[k], "KILLED")
        if self._parent is not None:
            self._delivery.news(self._parent.path.name, status=status)

    def draw_ahead(self, config: RunConfig) -> None:
        """Draw what doesn't depend on which run is the best, where only that one's pictures are wanted."""
        if config.tracking.pictures == "best" and self._parent is not None:
            from lockstep.pictures import run_pictures  # see lockstep.task

            self._drawn_ahead = self.shared
            run_pictures.draw_data(datasets.load(config.data), self._drawn_ahead)

    @deferred()
    def draw_best(self, rank: Callable[[Sequence[Outcome]], list[Repeats]]) -> None:
        """Where only the best run's pictures are wanted, draw them now, from what the store has of it."""
        wanted = [o for o in self._outcomes.values() if o.config.tracking.pictures == "best"]
        if not (rows := rank(wanted)):
            return
        k = next(k for k, outcome in self._outcomes.items() if outcome is rows[0].outcomes[0])
        run = self._store.result(self._jobs[k].config.tracking.experiment, self._keys[k])
        if run is None:  # not delivered
            return
        recorded = Recorded(self._store.client, run.info.run_id)
        try:
            with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
                self._draw(k, recorded, Path(folder))
        except Exception as error:
            log.exception("%s failed", self._names[k])
            reason = f"{type(error).__name__}: {error}"
            self._outcomes[k] = replace(self._outcomes[k], status="FAILED", reason=reason)
            recorded.end("FAILED", {REASON: reason})

    def _draw(self, k: int, recorded: Recorded, folder: Path) -> None:
        from lockstep.pictures import run_pictures  # see lockstep.task

        config, stored = self._jobs[k].config, recorded.download(folder)
        if (stored / "curves").exists():
            return
        dataset = datasets.load(config.data)
        network = networks.build(
            config.model, dataset.n_features, dataset.n_classes, generator(config.seed, "init")
        )
        weights = torch.load(stored / "model" / "state_dict.pt", weights_only=True)
        network.to(next(iter(weights.values())).dtype).load_state_dict(weights)
        run = TrainedRun(config, network, artifacts.read_history(stored))
        with tempfile.TemporaryDirectory(prefix="lockstep-") as drawn:
            run_pictures.draw_run(run, dataset, self._names[k], Path(drawn), self._drawn_ahead or folder)
            recorded.artifacts(Path(drawn))
