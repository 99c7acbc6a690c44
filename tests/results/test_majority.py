"""Runs that are no better than always predicting the most frequent class are named."""

from lockstep.results import majority
from lockstep.results.run_result import RunResult
from lockstep.results.winner import Repeats


def row(name, *pairs):
    runs = [
        RunResult(
            f"{name} s{seed}",
            "",
            "",
            {},
            (),
            "FINISHED",
            {"test/accuracy": accuracy},
            majority_accuracy=of_class,
        )
        for seed, (accuracy, of_class) in enumerate(pairs)
    ]
    return Repeats(tuple(runs))


def test_they_are_named_with_both_accuracies():
    better, equal = row("a", (0.91, 0.9)), row("b", (0.9, 0.9))
    folds = row("c", (0.95, 0.9), (0.83, 0.9))  # of the means
    unknown = row("d", (0.1, None))
    assert majority.warning([better, unknown]) == ""
    start = "No better than always predicting the most frequent class: "
    assert majority.warning([better, equal, folds, unknown]) == (
        f"{start}b s0 (test accuracy 0.9000, that class 0.9000), c (test accuracy 0.8900, that class 0.9000)."
    )
    many = majority.warning([equal] * 5)
    assert many.count("b s0") == 3 and many.endswith(" and 2 more.")
