"""A stored run compared with the same run trained again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Series = Mapping[str, Mapping[int, float]]
"""Values by name and iteration."""


@dataclass
class Comparison:
    """The result of training a run again.

    Attributes:
        name: the run's name.
        compared: how many values of what were compared, in words.
        differences: what differs in any bit, in words.
        missing: what the store should have of the run.
        left_out: what the store has and was not compared.
        machine: in words, whether the run was trained on a machine that computes differently.
    """

    name: str
    compared: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    machine: str = ""

    @property
    def is_identical(self) -> bool:
        """Whether all that the store should have is there, and equal."""
        return not (self.differences or self.missing)

    def lines(self) -> Iterator[str]:
        """Yield the comparison as text."""
        if self.differences:
            yield f"{self.name}: not the same"
            yield from (f"  differs: {difference}" for difference in self.differences)
        elif self.missing:
            yield f"{self.name}: incomplete; what the store has is identical, all {', '.join(self.compared)}"
        else:
            yield f"{self.name}: identical, all {', '.join(self.compared)}"
        yield from (f"  not in the store: {what}" for what in self.missing)
        if self.left_out:
            yield f"  not compared: {', '.join(self.left_out)}"
        if self.machine:
            yield f"  {self.machine}"

    def add(self, what: str, recorded: Series, again: Series) -> None:
        """Compare values of the store with those of the run trained again."""
        n_compared = 0
        for key in sorted({*recorded, *again}):
            before, now = recorded.get(key, {}), again.get(key, {})
            shared = sorted(before.keys() & now.keys())
            n_compared += len(shared)
            if lacking := len(now) - len(shared):
                self.missing.append(f"{key}, {lacking} of {len(now)} {what}")
            if extra := len(before) - len(shared):
                self.differences.append(f"{key}, {extra} {what} more than it has now")
            if at := [step for step in shared if before[step] != now[step]]:
                largest = max(abs(before[step] - now[step]) for step in at)
                self.differences.append(f"{key}, {what}, from {at[0]} on, by up to {largest:.2g}")
        self.compared.append(f"{n_compared:,} {what}")
