"""How a run ended."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lockstep.config.identity import NUMERICS_VERSION

SHORTEST_ID, LONGEST_ID = 8, 32
"""Characters that are shown of an MLflow run's id, and that it has."""

NAMED = 3
"""The most runs that `of_earlier_versions` names."""


class RunFailed(Exception):
    """A run of the command ended FAILED; the message says which and why."""


@dataclass(frozen=True)
class RunResult:
    """A run's end, or of a run that still trains, how far it is.

    Attributes:
        name: as in MLflow.
        run_key: identifies what was trained, see RunConfig.run_key.
        data_digest: of the data it was trained on.
        majority_accuracy: the test accuracy of always predicting its data's most frequent class, where known.
        pool_digest: of the instances of all folds, where one fold was its test set; else empty.
        params: every setting by its key, as text.
        overrides: that asked for it.
        status: FINISHED, FAILED, KILLED, or RUNNING, as MLflow has them.
        metrics: last and best figures by name, as the store has them.
        reason: why it did not finish.
        pruned_at: the epochs after which a search pruned it, to three decimals; or None.
        is_stored: whether an earlier command trained it.
        run_id, experiment_id: its MLflow run, where that is known.
        stopped_at: the epochs after which it stopped early, its patience over, or None.
        restored_epoch: the epoch whose weights it has and whose figures its metrics are, or None.
        numerics_version: that trained it, see lockstep.config.identity.
    """

    name: str
    run_key: str
    data_digest: str
    params: Mapping[str, str]
    overrides: tuple[str, ...]
    status: str
    metrics: Mapping[str, float]
    reason: str = ""
    pruned_at: float | None = None
    is_stored: bool = False
    run_id: str | None = None
    experiment_id: str | None = None
    stopped_at: int | None = None
    restored_epoch: int | None = None
    numerics_version: int = NUMERICS_VERSION
    pool_digest: str = ""
    majority_accuracy: float | None = None

    @property
    def instances_digest(self) -> str:
        """The digest of the instances that it was trained and tested on: the same for all folds of them."""
        return self.pool_digest or self.data_digest

    @property
    def is_complete(self) -> bool:
        """Whether it was trained to its end."""
        return self.status == "FINISHED" and self.pruned_at is None

    def value(self, metric: str) -> float | None:
        """Return a metric's last value, as a Hydra job returns it; None of a run that was pruned.

        Raises:
            RunFailed: if the run did not finish.
        """
        if self.status != "FINISHED":
            raise RunFailed(f"{self.name}: {self.reason}")
        return self.metrics.get(metric) if self.is_complete else None


def of_earlier_versions(runs: Iterable[RunResult]) -> str:
    """Return a sentence that names the runs of earlier numerics versions; empty if there are none."""
    earlier = [run for run in runs if run.numerics_version != NUMERICS_VERSION]
    if not earlier:
        return ""
    versions = " and ".join(map(str, sorted({run.numerics_version for run in earlier})))
    of = f"of numerics version {versions}, which an earlier Lockstep had"
    n_more = len(earlier) - NAMED
    names = ", ".join(run.name for run in earlier[:NAMED]) + (f" and {n_more} more" if n_more > 0 else "")
    counted = f"{len(earlier)} runs are" if len(earlier) > 1 else "1 run is"
    return f"{counted} {of}: trained now, the last digits may differ ({names})."


def epochs_text(epochs: float) -> str:
    """Return a number of epochs as text: `4`, `0.5`."""
    return str(epochs).removesuffix(".0")


def short_length(run_ids: Collection[str]) -> int:
    """Return how many characters of the ids tell them apart, at least SHORTEST_ID."""
    lengths, n_ids = range(SHORTEST_ID, LONGEST_ID), len({*run_ids})
    return next((n for n in lengths if len({run_id[:n] for run_id in run_ids}) == n_ids), LONGEST_ID)
