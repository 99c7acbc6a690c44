"""A run of a command, and its state."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from lockstep.config.run_request import RunRequest
from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.recovery.description import Description
from lockstep.recovery.run_folder import RunFolder
from lockstep.results.history import History, Status
from lockstep.results.run_result import RunResult
from lockstep.tracking.upload import Upload


@dataclass
class Entry:
    """A run of the command.

    Attributes:
        number: its number in tasks, events and the progress.
        keys: its run key by the version of the numerics, see RunConfig.run_keys.
        version: of the numerics that trained it, or will.
        first: the first entry of the same run, often itself.
        is_trial: whether it is a search's trial, which may be pruned.
        result: once it has ended.
        upload: once this process has claimed it.
        earlier: folders that earlier versions left of it, see lockstep.sweep.earlier.
    """

    number: int
    request: RunRequest
    name: str
    keys: Mapping[int, str]
    data: DataDescription
    folder: RunFolder
    is_trial: bool
    version: int = field(init=False)
    first: "Entry" = field(init=False)
    history: History = field(default_factory=History)
    result: RunResult | None = None
    upload: Upload | None = None
    earlier: Mapping[int, RunFolder] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.version = next(iter(self.keys))

    @property
    def config(self) -> RunConfig:
        """The run's config."""
        return self.request.config

    @property
    def run_key(self) -> str:
        """The key with which it is recorded."""
        return self.keys[self.version]

    @property
    def run_id(self) -> str | None:
        """Its MLflow run, once it exists."""
        if self.upload is not None:
            return self.upload.run_id
        return self.result.run_id if self.result is not None else None

    def description(self, uri: str, parent: RunFolder | None) -> Description:
        """Return what the run's folder keeps of it.

        Args:
            uri: the store's address, without a password.
            parent: the sweep's folder; None for a run without a sweep.
        """
        return Description(
            kind="run" if parent else "single",
            name=self.name,
            overrides=list(self.request.overrides),
            uri=uri,
            experiment=self.config.tracking.experiment,
            config=self.config.model_dump(mode="json", exclude={"tracking": {"uri"}}),
            parent=parent.path.name if parent else None,
            data=asdict(self.data),
            run_key=self.run_key,
            numerics_version=self.version,
        )

    def result_as(
        self,
        status: Status,
        metrics: Mapping[str, float],
        reason: str = "",
        pruned_at: float | None = None,
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
            numerics_version=self.version,
            pool_digest=self.data.pool_digest,
            majority_accuracy=self.data.majority_accuracy,
        )
