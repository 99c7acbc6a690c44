"""What becomes of the runs of a command → their outcomes, the terminal, the way to the store."""

import logging
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lockstep import data, models
from lockstep.delivery import Delivery, Parcel, conclusion
from lockstep.interrupts import deferred
from lockstep.journal import Ended, Event
from lockstep.plan import Job
from lockstep.report import Outcome
from lockstep.terminal import Progress
from lockstep.tracking import REASON, Recorded, Store
from lockstep.train import History, Status, TrainedRun, generator
from lockstep.unfinished import Description, Folder, folder_name, folders, unfinished

log = logging.getLogger("lockstep")

WAIT_SECONDS = 0.5
"""How often runs that another process trains are looked at."""


class Recorder:
    """Knows of each run of a command how far it is, and what is left to do.

    Args:
        jobs, names: the runs; those that are equal but for their names count as one.
        sweep: the sweep's overrides, or None for a run without one, which always trains from its start.
    """

    def __init__(
        self,
        store: Store,
        jobs: Sequence[Job],
        names: Sequence[str],
        sweep: Sequence[str] | None,
        delivery: Delivery,
        progress: Progress,
    ) -> None:
        self._store, self._jobs, self._names, self._sweep = store, jobs, names, sweep
        self._delivery, self._progress = delivery, progress
        self._experiments = [job.config.tracking.experiment for job in jobs]
        self._keys = [job.config.run_key(data.load(job.config.data).digest) for job in jobs]
        if sweep is None:
            self._folders = [Folder(unfinished() / f"single-{uuid.uuid4().hex}")]
        else:
            self._folders = [
                Folder(unfinished() / folder_name("run", store.address, experiment, [key]))
                for experiment, key in zip(self._experiments, self._keys, strict=True)
            ]
        names_of_folders = [folder.path.name for folder in self._folders]
        self._same_as = [names_of_folders.index(name) for name in names_of_folders]
        self._histories = [History() for _ in jobs]
        self._outcomes: dict[int, Outcome] = {}
        self._parent: Folder | None = None
        self._taken: set[int] = set()
        self._has_waited = False
        self._adopt()

    def _adopt(self) -> None:
        """What processes that are gone have left: this command's own parent, and runs nobody goes on with."""
        if self._sweep is not None:
            parent = self._parent_folder()
            if parent.exists() and parent.claim():
                self._set_parent(parent)
        mine = {folder.path.name for folder in self._folders} if self._sweep is not None else set()
        for folder in folders(unfinished()) if unfinished().exists() else ():
            if folder.path.name not in mine | {self._parent and self._parent.path.name} and folder.claim():
                self._delivery.take_over(folder)

    def waiting(self) -> list[int]:
        """Jobs that have not ended, of equal ones the first."""
        return [k for k in range(len(self._jobs)) if self._same_as[k] == k and k not in self._outcomes]

    def take_up(self) -> list[int]:
        """Jobs that are left for this process to train: no other one has them, nor has the store."""
        claimed = [k for k in self.waiting() if self._folders[k].claim()]
        # Asked when the runs are claimed: until then another process might still bring a result.
        asked = {self._experiments[k] for k in claimed} if self._sweep is not None else set()
        filled = {experiment for experiment in asked if not self._store.is_empty(experiment)}
        taken = []
        for k in claimed:
            may_be_stored = not self._folders[k].exists() and self._experiments[k] in filled
            if may_be_stored and self._reuse(k):
                self._folders[k].release()
            elif not self._go_on(k):
                taken.append(k)
        return taken

    def wait_for_others(self, n_runs: int) -> None:
        """Another process trains what is left: give it a moment."""
        if not self._has_waited:
            log.info("%d runs are being trained by another command; waiting for it", n_runs)
        self._has_waited = True
        time.sleep(WAIT_SECONDS)

    def _reuse(self, k: int) -> bool:
        """Whether the store has the run's result already."""
        config = self._jobs[k].config
        run = None if config.rerun else self._store.result(self._experiments[k], self._keys[k])
        if run is None:
            return False
        reason = run.data.tags.get(REASON, "")
        self._outcomes[k] = Outcome(
            config, self._names[k], run.info.status, run.data.metrics, reason, stored=True
        )
        self._progress.skip(config.trainer.epochs)
        return True

    def _go_on(self, k: int) -> bool:
        """Take the run's folder up, a new one or an earlier process's; whether there all is done."""
        folder, config, job = self._folders[k], self._jobs[k].config, self._jobs[k]
        is_new = not folder.exists()
        if self._sweep is not None and self._parent is None:
            parent = self._parent_folder()
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
        self._progress.skip(history.epochs)
        if history.marks:
            self._delivery.news(folder.path.name, history)
        if ended is not None:
            self._end(k, ended)
        return ended is not None

    def _parent_folder(self) -> Folder:
        """The same for the same sweep."""
        return Folder(
            unfinished() / folder_name("sweep", self._store.address, self._experiments[0], self._keys)
        )

    def _set_parent(self, folder: Folder) -> None:
        is_new = not folder.exists()
        if is_new:
            description = Description(
                kind="sweep",
                name=f"sweep of {len(self._jobs)} run{'s' * (len(self._jobs) != 1)}",
                overrides=list(self._sweep or ()),
                uri=self._store.address,
                experiment=self._experiments[0],
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

    def folder(self, job: int) -> Path:
        """A run's folder."""
        return self._folders[job].path

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
        self._progress.epoch(self._names[job], self._jobs[job].config, self._histories[job])

    def _end(self, job: int, ended: Ended) -> None:
        history, name = self._histories[job], self._names[job]
        status, reason = conclusion(history, ended)
        if ended.reason:
            log.error("%s failed\n%s", name, ended.trace or ended.reason)
        self._outcomes[job] = Outcome(self._jobs[job].config, name, status, history.summary(), reason)
        self._delivery.news(self._folders[job].path.name, history, status, reason)

    @property
    def outcomes(self) -> list[Outcome]:
        """What became of the runs, in the order of the jobs."""
        of_all = [(name, self._outcomes.get(k)) for name, k in zip(self._names, self._same_as, strict=True)]
        return [replace(outcome, name=name) for name, outcome in of_all if outcome is not None]

    @deferred()
    def close(self, status: Status) -> None:
        """The command is over: so is its parent run; runs that have not ended are KILLED."""
        for k in sorted(self._taken - self._outcomes.keys()):
            if self._histories[k].marks:  # else the store knows nothing of it
                self._delivery.news(self._folders[k].path.name, self._histories[k], "KILLED")
        if self._parent is not None:
            self._delivery.news(self._parent.path.name, status=status)

    @deferred()
    def draw_best(self) -> None:
        """Where only the best run's pictures are wanted, draw them now, from what the store has of it."""
        ranked = [
            (outcome.objective, -k)
            for k, outcome in self._outcomes.items()
            if outcome.objective is not None and outcome.config.tracking.pictures == "best"
        ]
        if not ranked:
            return
        k = -max(ranked)[1]
        run = self._store.result(self._experiments[k], self._keys[k])
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
            recorded.end("FAILED", reason)

    def _draw(self, k: int, recorded: Recorded, folder: Path) -> None:
        from lockstep import artifacts  # see lockstep.task

        config, stored = self._jobs[k].config, recorded.download(folder)
        if (stored / "curves").exists():
            return
        dataset = data.load(config.data)
        network = models.build(
            config.model, dataset.n_features, dataset.n_classes, generator(config.seed, "init")
        )
        weights = torch.load(stored / "model" / "state_dict.pt", weights_only=True)
        network.to(next(iter(weights.values())).dtype).load_state_dict(weights)
        run = TrainedRun(config, network, artifacts.read_history(stored))
        with tempfile.TemporaryDirectory(prefix="lockstep-") as drawn:
            artifacts.draw_run(run, dataset, self._names[k], Path(drawn), folder)
            recorded.artifacts(Path(drawn))
