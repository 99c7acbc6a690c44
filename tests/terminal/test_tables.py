from dataclasses import replace

import pytest
from helpers.configs import run_config

from lockstep.data.description import DataDescription, TableDescription
from lockstep.data.table_model import Column
from lockstep.results.run_result import RunResult
from lockstep.results.winner import Ranking, ranked
from lockstep.terminal.console import PlainConsole
from lockstep.terminal.tables import columns_table, leaderboard


def result(name, test=(), val=(), status="FINISHED", reason="", stored=False, pruned_at=None, **settings):
    metrics = {"time/train_seconds": 1.25}
    if test:
        metrics |= {"test/accuracy": test[-1], "test/loss": 1 - test[-1], "test/accuracy_best": max(test)}
    if val:
        metrics |= {"val/accuracy": val[-1], "val/loss": 1 - val[-1]}
    # Two runs that aren't told otherwise differ in more than their seeds.
    config = run_config(**(settings or {"epochs": 1 + len(name) + sum(map(ord, name))}))
    key, params = config.run_key("digits"), config.param_texts()
    return RunResult(name, key, "digits", params, (), status, metrics, reason, pruned_at, stored)


def shown(results, ranking=None, width=120):
    ranking = ranking or Ranking.of(results)
    console = PlainConsole(width=width, color_system=None)
    with console.capture() as captured:
        console.print(leaderboard(results, ranked(results, ranking), ranking.metric, width))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_leaderboard_puts_failures_first_and_ranks_by_last_test_accuracy():
    lines = shown(
        [
            result("early", test=(0.95, 0.90)),
            result("sick", status="FAILED", reason="diverged: at once"),
            result("late", test=(0.80, 0.92), stored=True),
        ]
    )
    assert [line.split() for line in lines] == [
        ["run", "test", "accuracy", "best", "test", "loss", "training", "status", "id"],
        ["sick", "1.2", "s", "FAILED:", "diverged:", "at", "once"],
        ["late", "0.9200", "0.9200", "0.0800", "stored", "FINISHED"],
        ["early", "0.9000", "0.9500", "0.1000", "1.2", "s", "FINISHED"],
    ]


def test_leaderboard_ranks_by_validation_where_there_is_a_validation_set():
    lines = shown([result("a", test=(0.99,), val=(0.90,)), result("b", test=(0.97,), val=(0.95,))])
    assert lines[0].split()[:3] == ["run", "val", "accuracy"]
    assert [line.split()[:3] for line in lines[1:]] == [["b", "0.9500", "0.9700"], ["a", "0.9000", "0.9900"]]


def seeds(name, accuracies, **settings):
    return [
        result(f"{name} seed={seed}".strip(), test=(accuracy,), seed=seed, **settings)
        for seed, accuracy in enumerate(accuracies)
    ]


def test_a_run_with_a_patience_says_which_epoch_it_restored_and_when_it_stopped():
    stopped = [replace(run, stopped_at=7, restored_epoch=4) for run in seeds("a", (0.9,), epochs=9)]
    whole = [replace(run, restored_epoch=8) for run in seeds("b", (0.8,), epochs=8)]
    some = seeds("c", (0.7, 0.6), epochs=10)
    some = [replace(some[0], stopped_at=6, restored_epoch=5), replace(some[1], restored_epoch=9)]
    assert [" ".join(line.split()[7:]) for line in shown([*stopped, *whole])[1:]] == [
        "FINISHED: stopped after epoch 7, epoch 4 restored",
        "FINISHED: epoch 8 restored",
    ]
    assert shown(some)[1].endswith("FINISHED: stopped after epoch 6, epoch 5 to 9 restored")


def test_runs_that_differ_in_seed_alone_are_one_row():
    lines = shown(
        [
            *seeds("epochs=1", (0.90, 0.92, 0.94), epochs=1),
            *seeds("epochs=2", (0.95, 0.97), epochs=2),
            result("epochs=2 seed=2", status="FAILED", reason="diverged: late", epochs=2, seed=2),
            result("epochs=3 seed=0", test=(0.93,), epochs=3, seed=0),
        ]
    )
    assert [" ".join(line.split()) for line in lines] == [
        "run n test accuracy test loss training status id",
        "epochs=2 seed=2 1 1.2 s FAILED: diverged: late",
        "epochs=2 2 0.9600 ± 0.0141 0.0400 ± 0.0141 1.2 s FINISHED",
        "epochs=3 seed=0 1 0.9300 0.0700 1.2 s FINISHED",
        "epochs=1 3 0.9200 ± 0.0200 0.0800 ± 0.0200 1.2 s FINISHED",
    ]


def test_what_ranks_the_runs_is_a_column():
    runs = [result("a", test=(0.9,), val=(0.7,)), result("b", test=(0.8,), val=(0.8,))]
    lines = shown(runs, Ranking("val/loss", maximize=False))
    assert lines[0].split()[:5] == ["run", "val", "loss", "val", "accuracy"]
    assert [line.split()[:2] for line in lines[1:]] == [["b", "0.2000"], ["a", "0.3000"]]


def test_ids_are_short_but_as_long_as_tells_them_apart():
    runs = [result("a", test=(0.9,)), result("b", test=(0.8,))]
    for ids, said in (
        (("0" * 32, "1" * 32), ["00000000", "11111111"]),
        (("a" * 10 + "0" * 22, "a" * 10 + "1" * 22), ["aaaaaaaaaa0", "aaaaaaaaaa1"]),
    ):
        named = [replace(run, run_id=run_id) for run, run_id in zip(runs, ids, strict=True)]
        assert [line.split()[-1] for line in shown(named)[1:]] == said


@pytest.mark.parametrize(
    ("width", "headings"),
    [
        (120, "run n val accuracy test accuracy test loss training status id"),
        (90, "run n val accuracy test accuracy training status id"),
        (82, "run n val accuracy test accuracy status id"),
    ],
)
def test_where_there_is_no_room_columns_are_left_out_and_figures_and_ids_never_cut(width, headings):
    runs = seeds("lr=0.1 hidden_dim1=256 momentum=0.9", (0.90, 0.92), val=(0.5,))
    runs = [replace(run, run_id=f"{index}" * 32) for index, run in enumerate(runs)]
    table = leaderboard(runs, ranked(runs, Ranking.of(runs)), "val/accuracy", width)
    assert " ".join(str(column.header).replace("\n", " ") for column in table.columns) == headings
    lines = shown(runs, width=width)
    assert all(len(line) <= width for line in lines)
    assert any("0.5000 ± 0.0000  0.9100 ± 0.0141" in line and line.endswith("00000000") for line in lines)


def test_what_each_column_becomes():
    columns = (
        Column("mass [g]", None, 4201.756, 801.5, fill=4100.0, n_missing=12),
        Column("island", ("Biscoe", "Dream", "Torgersen")),
        Column("sex", ("female",), fill="female"),
    )
    table = TableDescription("species", columns, (("k", "is constant"),))
    data = DataDescription("table", "0" * 32, (5,), ("Adelie", "Gentoo"), 275, 69, "t.csv", table=table)
    console = PlainConsole(width=80, color_system=None)
    with console.capture() as captured:
        console.print(columns_table(data, ("id\t",), 80))
    assert [line.rstrip() for line in captured.get().splitlines()] == [
        "column    missing  features  becomes",
        "mass [g]       12         1  (number - 4202) / 801.5",
        "island          0         3  one-hot: Biscoe, Dream, Torgersen",
        "sex             0         1  one-hot: female",
        "k                         0  left out: it is constant",
        "id\\t                      0  left out: data.drop",
        "species                      target, 2 classes: Adelie, Gentoo",
    ]
