"""Tags of MLflow runs, and what they say of a run's end."""

from lockstep.recovery.journal import Ended
from lockstep.results.history import History, Status

TOKEN, REASON, PRUNED_AT = "lockstep.token", "lockstep.reason", "lockstep.pruned_at"
WARNING = "lockstep.warning"
KIND, RUN_KEY, SWEEP_KEY = "lockstep.kind", "lockstep.run_key", "lockstep.sweep_key"
OVERRIDES, ENVIRONMENT = "lockstep.overrides", "lockstep.environment"
DATA_SCALE, CANARY, ARTIFACTS = "lockstep.data_scale", "lockstep.canary", "lockstep.artifacts"
"""Tags. OVERRIDES are a run's overrides; ENVIRONMENT is JSON, see lockstep.tracking.environment; DATA_SCALE
is how features were scaled, see DataDescription; CANARY tells which machines trained the run, see Epoch;
ARTIFACTS lists the files that its worker wrote, joined by commas."""

NOTE = "mlflow.note.content"

DIVERGED = "diverged: "
"""The start of a run's REASON if its loss stopped being finite."""


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
    return "FINISHED", tags if ended.pruned_at is None else {PRUNED_AT: str(ended.pruned_at), **tags}
