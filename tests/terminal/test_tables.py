import pytest
from helpers.configs import run_config
from rich.console import Console

from lockstep.results.run_result import RunFailed, RunResult
from lockstep.results.winner import ranked
from lockstep.terminal.tables import leaderboard


def outcome(name, test=(), val=(), status="FINISHED", reason="", stored=False, pruned_at=None, **settings):
    metrics = {"time/train_seconds": 1.25}
    if test:
        metrics |= {"test/accuracy": test[-1], "test/loss": 1 - test[-1], "test/accuracy_best": max(test)}
    if val:
        metrics |= {"val/accuracy": val[-1]}
    # Two runs that aren't told otherwise differ in more than their seeds.
    config = run_config(**(settings or {"epochs": 1 + len(name) + sum(map(ord, name))}))
    return RunResult(config, name, (), status, metrics, reason, stored, pruned_at)


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


def seeds(name, accuracies, **settings):
    return [
        outcome(f"{name} seed={seed}".strip(), test=(accuracy,), seed=seed, **settings)
        for seed, accuracy in enumerate(accuracies)
    ]


def test_runs_that_differ_in_seed_alone_are_one_row():
    lines = shown(
        [
            *seeds("epochs=1", (0.90, 0.92, 0.94), epochs=1),
            *seeds("epochs=2", (0.95, 0.97), epochs=2),
            outcome("epochs=2 seed=2", status="FAILED", reason="diverged: late", epochs=2, seed=2),
            outcome("epochs=3 seed=0", test=(0.93,), epochs=3, seed=0),
        ]
    )
    assert [" ".join(line.split()) for line in lines] == [
        "run n test accuracy test loss training status",
        "epochs=2 seed=2 1 1.2 s FAILED: diverged: late",
        "epochs=2 2 0.9600 ± 0.0141 0.0400 ± 0.0141 1.2 s FINISHED",
        "epochs=3 seed=0 1 0.9300 0.0700 1.2 s FINISHED",
        "epochs=1 3 0.9200 ± 0.0200 0.0800 ± 0.0200 1.2 s FINISHED",
    ]


def test_a_shuffle_seed_that_follows_the_seed_counts_as_the_seed():
    follows = [outcome(f"seed={s}", test=(0.9,), seed=s, shuffle_seed=s) for s in range(3)]
    assert [len(row.runs) for row in ranked(follows)] == [3]
    differs = [outcome(f"shuffle_seed={s}", test=(0.9,), seed=7, shuffle_seed=s) for s in range(3)]
    assert [len(row.runs) for row in ranked(differs)] == [1, 1, 1]
    assert ranked(follows)[0].name == "mlp"


def test_ranking_by_a_loss_puts_the_least_first_and_leaves_out_what_was_given_up():
    outcomes = [outcome("a", test=(0.9,)), outcome("b", test=(0.8,)), outcome("c", test=(0.99,), pruned_at=1)]
    assert [row.name for row in ranked(outcomes, "test/loss", maximizes=False)] == ["a", "b"]
    assert [row.name for row in ranked(outcomes, "test/loss", maximizes=True)] == ["b", "a"]
    assert outcomes[2].objective is None
