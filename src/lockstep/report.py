"""What is printed of runs: the table of those that have ended, best first, and the plan of a dry run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from lockstep.config import RunConfig
from lockstep.plan import Plan
from lockstep.train import Status


class RunFailed(Exception):
    """A run of the command ended FAILED; the message says which and why."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        name: as in MLflow.
        metrics: its last and best figures, by name, as the store has them.
        reason: why it did not finish.
        stored: whether an earlier command trained it.
        pruned_at: the epochs after which a search gave it up, or None.
    """

    config: RunConfig
    name: str
    status: Status
    metrics: Mapping[str, float]
    reason: str = ""
    stored: bool = False
    pruned_at: int | None = None

    @property
    def objective(self) -> float | None:
        """The last accuracy on the validation set, or on the test set where there is none; None of a run that
        did not come to its end."""
        accuracy = self.metrics.get("val/accuracy", self.metrics.get("test/accuracy"))
        return accuracy if self.status == "FINISHED" and self.pruned_at is None else None

    def result(self) -> float | None:
        """The objective, as a Hydra job returns it.

        Raises:
            RunFailed: if the run did not finish.
        """
        if self.status != "FINISHED":
            raise RunFailed(f"{self.name}: {self.reason}")
        return self.objective


def leaderboard(outcomes: Sequence[Outcome]) -> Table:
    """Failures first, then runs best first, by validation accuracy where there is a validation set."""
    ranked = sorted(outcomes, key=lambda outcome: -(outcome.objective or 0))
    ranked.sort(key=lambda outcome: outcome.status == "FINISHED")
    columns = {
        "val accuracy": ("val/accuracy", ".4f"),
        "test accuracy": ("test/accuracy", ".4f"),
        "best": ("test/accuracy_best", ".4f"),
        "test loss": ("test/loss", ".4f"),
        "training": ("time/train_seconds", ".1f"),
    }
    if not any("val/accuracy" in outcome.metrics for outcome in outcomes):
        del columns["val accuracy"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right")
    table.add_column("status")
    for outcome in ranked:
        cells = [
            f"{outcome.metrics[key]:{form}}" if key in outcome.metrics else ""
            for key, form in columns.values()
        ]
        cells[-1] = "stored" if outcome.stored else f"{cells[-1]} s"
        status = outcome.status + (f": {outcome.reason}" if outcome.reason else "")
        table.add_row(outcome.name, *cells, status)
    return table


def plan_table(planned: Plan, names: Sequence[str], flops: float) -> Table:
    """What a dry run shows: each array's runs, the time they take and the bytes of their state.

    Args:
        flops: FLOP/s of a large GEMM on one thread of this machine.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("array")
    table.add_column("runs", overflow="fold")
    for heading in ("training", "memory"):
        table.add_column(heading, justify="right")
    for index, array in enumerate(planned.arrays, start=1):
        runs = "\n".join(names[k] for k in array.jobs)
        table.add_row(str(index), runs, f"{array.cost / flops:.1f} s", f"{array.bytes / 2**20:.1f} MiB")
    return table


def plan_summary(planned: Plan, flops: float) -> str:
    """The plan's whole in a sentence; `flops` as for `plan_table`."""
    n_runs = sum(len(array.jobs) for array in planned.arrays)
    numbers = ((n_runs, "run"), (len(planned.arrays), "array"), (planned.n_workers, "worker"))
    runs, arrays, workers = (f"{n:,} {what}{'s' * (n != 1)}" for n, what in numbers)
    return (
        f"{runs} in {arrays} on {workers}: about {planned.cost / flops:.0f} s of training, and"
        f" {planned.bytes / 2**20:.1f} MiB at once for weights, gradients and optimizers, beside the data."
    )
