"""A run of a command, and its state."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lockstep.config.run_request import RunRequest
from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.recovery.run_folder import RunFolder
from lockstep.results.history import History, Status
from lockstep.results.run_result import RunResult
from lockstep.tracking.upload import Upload


@dataclass
class Entry:
    """A run of the command.

    Attributes:
        number: its number in tasks, events and the progress.
        first: the first entry of the same run, often itself.
        is_trial: whether it is a search's trial, which may be pruned.
        result: once it has ended.
        upload: once this process has claimed it.
    """

    number: int
    request: RunRequest
    name: str
    run_key: str
    data: DataDescription
    folder: RunFolder
    is_trial: bool
    first: "Entry" = field(init=False)
    history: History = field(default_factory=History)
    result: RunResult | None = None
    upload: Upload | None = None

    @property
    def config(self) -> RunConfig:
        """The run's config."""
        return self.request.config

    @property
    def run_id(self) -> str | None:
        """Its MLflow run, once it exists."""
        if self.upload is not None:
            return self.upload.run_id
        return self.result.run_id if self.result is not None else None

    def result_as(
        self,
        status: Status,
        metrics: Mapping[str, float],
        reason: str = "",
        pruned_at: int | None = None,
        stopped_at: int | None = None,
        restored_epoch: int | None = None,
    ) -> RunResult:
        """Return the run's result."""
        return RunResult(
            self.name,
            self.run_key,
            self.data.digest,
            self.config.param_texts(),
            self.request.overrides,
            status,
            metrics,
            reason,
            pruned_at,
            stopped_at=stopped_at,
            restored_epoch=restored_epoch,
        )
