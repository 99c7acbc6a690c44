"""One run, or a sweep's parent, on its way to the store: its state, its last error, its next attempt."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lockstep.recovery.description import Description
from lockstep.recovery.run_folder import RunFolder
from lockstep.results.history import History, Status
from lockstep.tracking.errors import is_outage, message_of
from lockstep.tracking.run import Recorded
from lockstep.tracking.tags import conclusion

RECORD_SECONDS = 1.0
"""A run's metrics are uploaded after an epoch, at most this often: a short epoch takes less time than a
write."""

LONGEST_RETRY = 32
"""The longest time between two attempts of a refused upload, as a multiple of the shortest."""


NAMED = 3
"""The uploads that `names` names."""


IN_HASTE = 5
"""How many times as long an interrupted command waits for the answer to a request."""

IN_A_ROW = 50
"""The most uploads after each other before others are looked for that may go first."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a run or a parent at one moment.

    Attributes:
        version: how often it has changed.
        history: of a run, as far as it goes.
        status: the last one, or None while it trains. A later command may resume a KILLED run.
        tags, metrics: set at the end.
    """

    version: int = 0
    history: History = field(default_factory=History)
    status: Status | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def changed(
        self,
        history: History | None,
        status: Status | None,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
    ) -> "Snapshot":
        """Return the next one; what is None or empty stays as it was. The history may grow later."""
        if history is not None:
            history = replace(
                history,
                evaluations=[*history.evaluations],
                marks=[*history.marks],
                rungs=[*history.rungs],
            )
        return Snapshot(
            self.version + 1,
            history or self.history,
            status or self.status,
            tags or self.tags,
            metrics or self.metrics,
        )


@dataclass
class Upload:
    """A run, or a sweep's parent, and its state in the store.

    Attributes:
        is_new: whether no process can have started its MLflow run yet.
        is_own: whether it belongs to this command, not to an earlier one.
        may_be_whole: whether it may be recorded as a whole, see lockstep.tracking.whole_runs.
        n_journaled: the iterations that its journal had when it was claimed.
        recorded: the MLflow run, once the store was asked for it.
        uploaded: the version that the store has.
        tried_at, retry_at: when the last attempt began; when the next one may.
        trouble: the error of the last attempt, empty if it succeeded.
        is_refused: whether that error is this upload's own: the store answers, and may take the others.
        refusals: how often in a row the error was its own.
    """

    folder: RunFolder
    description: Description
    is_new: bool
    is_own: bool = True
    n_journaled: int = 0
    may_be_whole: bool = True
    now: Snapshot = field(default_factory=Snapshot)
    recorded: Recorded | None = None
    uploaded: int = 0
    uploaded_at: float = -RECORD_SECONDS
    tried_at: float = 0.0
    retry_at: float = 0.0
    trouble: str = ""
    is_refused: bool = False
    refusals: int = 0

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.path.name

    @property
    def is_pending(self) -> bool:
        """Whether the store lacks its latest version."""
        return self.uploaded != self.now.version

    @property
    def is_due(self) -> bool:
        """Whether it is time to upload it."""
        now = time.monotonic()
        waited = self.now.status is not None or now - self.uploaded_at >= RECORD_SECONDS
        return self.is_pending and waited and now >= self.retry_at

    @property
    def is_awaited(self) -> bool:
        """Whether the command's end waits for it. What an earlier command left has one attempt."""
        return self.is_pending and not self.is_refused and (self.is_own or not self.trouble)

    @property
    def run_id(self) -> str | None:
        """The id of the MLflow run, None before it is started."""
        return self.recorded.run_id if self.recorded is not None else self.description.run_id

    def fail(self, error: Exception, is_its_own: bool, retry_seconds: float) -> None:
        """Note the error of the last attempt, and when to try again: later each time if it is its own."""
        self.trouble = message_of(error)
        self.is_refused = not is_outage(error)
        self.refusals = self.refusals + 1 if is_its_own else 0
        self.is_new = False  # its MLflow run may have been started all the same
        # A refused run is looked for again: it may have been deleted in the store.
        self.recorded = None if self.is_refused else self.recorded
        self.retry_at = time.monotonic() + retry_seconds * min(2**self.refusals, LONGEST_RETRY)

    def succeed(self, version: int) -> None:
        """Note that the store has this version."""
        self.uploaded, self.uploaded_at = version, time.monotonic()
        self.trouble, self.is_refused, self.refusals = "", False, 0


def names(uploads: Sequence[Upload]) -> str:
    """Return the names of the first uploads, and how many more there are."""
    first = [upload.description.name for upload in uploads[:NAMED]]
    more = [f"{len(uploads) - NAMED} more"] if len(uploads) > NAMED else []
    return ", ".join(first + more)


def left_in(folder: RunFolder, description: Description) -> Snapshot:
    """Return the state in which a dead process left a folder; without a status if it had not ended.

    Raises:
        Unreadable: if the folder is.
    """
    if description.kind == "sweep":
        return Snapshot(status=None if description.status == "KILLED" else description.status)
    history, ended = folder.history()
    if ended is None:
        return Snapshot(history=history)
    status, tags = conclusion(history, ended)
    return Snapshot(history=history, status=status, tags=tags, metrics=ended.metrics)
