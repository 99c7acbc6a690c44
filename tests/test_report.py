import pytest
from rich.console import Console
from test_train import run_config

from lockstep.report import Outcome, RunFailed, leaderboard


def outcome(name, test=(), val=(), status="FINISHED", reason="", stored=False):
    metrics = {"time/train_seconds": 1.25}
    if test:
        metrics |= {"test/accuracy": test[-1], "test/loss": 1 - test[-1], "test/accuracy_best": max(test)}
    if val:
        metrics |= {"val/accuracy": val[-1]}
    return Outcome(run_config(), name, status, metrics, reason, stored)


def shown(outcomes):
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(leaderboard(outcomes))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_leaderboard_puts_failures_first_and_ranks_by_last_test_accuracy():
    lines = shown(
        [
            outcome("early", test=(0.95, 0.90)),
            outcome("sick", status="FAILED", reason="diverged: at once"),
            outcome("late", test=(0.80, 0.92), stored=True),
        ]
    )
    assert [line.split() for line in lines] == [
        ["run", "test", "accuracy", "best", "test", "loss", "training", "status"],
        ["sick", "1.2", "s", "FAILED:", "diverged:", "at", "once"],
        ["late", "0.9200", "0.9200", "0.0800", "stored", "FINISHED"],
        ["early", "0.9000", "0.9500", "0.1000", "1.2", "s", "FINISHED"],
    ]


def test_leaderboard_ranks_by_validation_where_there_is_a_validation_set():
    lines = shown([outcome("a", test=(0.99,), val=(0.90,)), outcome("b", test=(0.97,), val=(0.95,))])
    assert lines[0].split()[:3] == ["run", "val", "accuracy"]
    assert [line.split()[:3] for line in lines[1:]] == [["b", "0.9500", "0.9700"], ["a", "0.9000", "0.9900"]]


def test_objective_is_what_a_sweeper_may_look_at():
    assert outcome("a", test=(0.9, 0.8)).result() == 0.8
    assert outcome("a", test=(0.9,), val=(0.7,)).result() == 0.7
    with pytest.raises(RunFailed, match="a: it broke"):
        outcome("a", test=(0.9,), status="FAILED", reason="it broke").result()
