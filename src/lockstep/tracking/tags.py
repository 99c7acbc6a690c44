"""Tags of MLflow runs, and what they say of a run's end."""

from collections.abc import Mapping

from lockstep.config.tracking_config import TrackingConfig
from lockstep.data.description import DataDescription
from lockstep.recovery.journal import Ended
from lockstep.results.history import History, Status
from lockstep.results.run_result import epochs_text

TOKEN, REASON, PRUNED_AT = "lockstep.token", "lockstep.reason", "lockstep.pruned_at"
STOPPED_AT, RESTORED_EPOCH = "lockstep.stopped_at", "lockstep.restored_epoch"
WARNING = "lockstep.warning"
NUMERICS, UNTAGGED = "lockstep.numerics_version", 2
"""A run's tag with the version of the numerics that trained it, and the version of runs without the tag."""

KIND, RUN_KEY, SWEEP_KEY = "lockstep.kind", "lockstep.run_key", "lockstep.sweep_key"
OVERRIDES, ENVIRONMENT = "lockstep.overrides", "lockstep.environment"
OUTPUTS = "lockstep.outputs"
"""The tag with the id of the outputs folder whose command recorded a run: only that folder's continue it."""

DATA_SCALE, CANARY, ARTIFACTS = "lockstep.data_scale", "lockstep.canary", "lockstep.artifacts"
DATA_POOL, MAJORITY = "lockstep.data_pool", "lockstep.majority_accuracy"
"""Tags. OVERRIDES are a run's overrides; ENVIRONMENT is JSON, see lockstep.tracking.environment; DATA_SCALE
is how features were scaled, DATA_POOL the digest of all folds, MAJORITY the most frequent class's accuracy,
see DataDescription; CANARY tells which machines trained the run, see Epoch; ARTIFACTS lists the files that
its worker wrote, joined by commas."""

REPORT = "lockstep.report"
"""The parent run's tag with a hash of what its report was made of."""

NOTE = "mlflow.note.content"
USER_NOTE = "lockstep.note"
"""The tag of a run's or sweep's description, and of the part of it that is the user's."""

DIVERGED = "diverged: "
"""The start of a run's REASON if its loss stopped being finite."""


def labels(tracking: TrackingConfig) -> dict[str, str]:
    """Return the tags that a user gave: their own, and the note."""
    note = {} if tracking.note is None else {USER_NOTE: tracking.note}
    return {**(tracking.tags or {}), **note}


def of_data(data: DataDescription) -> dict[str, str]:
    """Return the tags that tell of a run's data."""
    majority = "" if data.majority_accuracy is None else repr(data.majority_accuracy)
    tags = {DATA_SCALE: data.scale, DATA_POOL: data.pool_digest, MAJORITY: majority}
    return {tag: value for tag, value in tags.items() if value}


def description(tags: Mapping[str, str], text: str = "") -> dict[str, str]:
    """Return the tag of a run's description: the user's note, and a text after it; empty where both are."""
    parts = [part for part in (tags.get(USER_NOTE), text) if part]
    return {NOTE: "\n\n".join(parts)} if parts else {}


def conclusion(history: History, ended: Ended) -> tuple[Status, dict[str, str]]:
    """Return a run's last status, and tags that say why, and what failed beside it."""
    tags = {WARNING: "; ".join(ended.warnings)} if ended.warnings else {}
    if history.canaries:
        tags[CANARY] = " ".join(history.canaries)
    if ended.artifacts:
        tags[ARTIFACTS] = ",".join(ended.artifacts)
    if ended.reason:
        return "FAILED", {REASON: ended.reason, **tags}
    if history.diverged_at is not None:
        reason = f"{DIVERGED}the loss was not finite at iteration {history.diverged_at}"
        return "FAILED", {REASON: reason, **tags}
    epochs: dict[str, float | None] = {
        PRUNED_AT: ended.pruned_at,
        STOPPED_AT: ended.stopped_at,
        RESTORED_EPOCH: ended.restored_epoch,
    }
    return "FINISHED", {
        **{tag: epochs_text(epoch) for tag, epoch in epochs.items() if epoch is not None},
        **tags,
    }
