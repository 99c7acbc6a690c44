import io
import re

import numpy as np
import pytest
from helpers.configs import LOGREG, run_config

from lockstep.results.history import Evaluation, History
from lockstep.terminal import console as terminal
from lockstep.terminal import progress as progress_module
from lockstep.terminal.console import PlainConsole
from lockstep.terminal.progress import Progress

NAME = "lr=0.1 [x]"


def history(epochs=2, test=0.9, val=None, loss=1.5, diverged_at=None):
    """Of so many epochs of two iterations; in the last, the losses have that mean."""
    evaluations = [Evaluation(2 * epochs, "test", 0.25, test)]
    evaluations += [] if val is None else [Evaluation(2 * epochs, "val", 0.5, val)]
    before = [9.0, 9.0] * (epochs - 1)
    return History(
        np.array([*before, loss - 0.5, loss + 0.5]),
        np.array([*[0.0 for _ in before], 0.5, 0.75]),
        evaluations,
        epochs,
        3.21,
        diverged_at,
        [(2 * epoch, 0) for epoch in range(1, epochs + 1)],
    )


def printed(monkeypatch, is_terminal, use, height=24, width=110):
    """What `use` prints on a console; of what a terminal shows and takes away again, all that it showed."""
    out = io.StringIO()
    console = PlainConsole(
        file=out, force_terminal=is_terminal, width=width, height=height, color_system=None
    )
    monkeypatch.setattr(terminal, "console", console)
    use()
    return out.getvalue()


def one_run(of):
    def use():
        with Progress(12, is_sweep=False) as progress:
            progress.add(0, NAME, run_config(LOGREG, epochs=12))
            progress.array([0])
            progress.epoch(0, of)

    return use


LINE = (
    "lr=0.1 [x]  epoch  2/12  train loss 1.5000 acc 0.6250"
    "  val loss 0.5000 acc 0.8000  test loss 0.2500 acc 0.9000  3.2 s"
)


def test_a_line_an_epoch_where_there_is_no_terminal(monkeypatch):
    assert printed(monkeypatch, False, one_run(history(val=0.8))) == LINE + "\n"


def test_a_line_an_epoch_of_a_single_run_above_a_bar_where_there_is_a_terminal(monkeypatch):
    out = printed(monkeypatch, True, one_run(history(val=0.8)))
    assert LINE in " ".join(out.split("\n"))
    assert "2/12" in out.partition(LINE)[2]


def test_a_diverged_run_says_when(monkeypatch):
    out = printed(monkeypatch, False, one_run(history(diverged_at=4)))
    assert out == "lr=0.1 [x]  diverged at iteration 4\n"


def test_a_line_of_an_array_comes_when_all_its_runs_are_through_an_epoch(monkeypatch):
    lines = []

    def use():
        out = terminal.console.file
        with Progress(8, is_sweep=True) as progress:
            for number, epochs in enumerate((1, 2, 3, 3)):
                progress.add(number, f"run {number}", run_config(LOGREG, epochs=epochs))
            progress.array([0, 1, 2])
            progress.array([3])

            def epoch(number, *figures):
                progress.epoch(number, history(*figures))
                lines.append(out.getvalue())
                out.seek(0)
                out.truncate()

            epoch(0, 1, 0.7, None, 2.0)
            progress.end(0, "finished")
            epoch(1, 1, 0.9, None, 3.0)
            epoch(3, 1, 0.5)
            epoch(2, 1, 0.8, None, 1.0)  # all three
            epoch(2, 2, 0.85, None, 0.5)
            epoch(2, 3, 0.86, None, 0.25)
            epoch(1, 2, 0.8, None, 0.75)  # two epochs: run 2 is ahead

    printed(monkeypatch, False, use)
    assert lines == [
        "",
        "",
        "run 3  epoch 1/3  train loss 1.5000 acc 0.6250  test loss 0.2500 acc 0.5000  3.2 s\n",
        "array 1 of 3 runs  epoch 1/3  train loss 1.0000 to 3.0000 acc 0.6250"
        "  test loss 0.2500 acc 0.7000 to 0.9000  best run 1  9.6 s\n",
        "",
        "",
        "array 1 of 3 runs  epoch 2/3  train loss 0.5000 to 0.7500 acc 0.6250"
        "  test loss 0.2500 acc 0.8000 to 0.8500  best run 2  6.4 s\n"
        "array 1 of 3 runs  epoch 3/3  train loss 0.2500 acc 0.6250"
        "  test loss 0.2500 acc 0.8600  best run 2  3.2 s\n",
    ]


def test_an_array_does_not_wait_for_a_run_that_failed(monkeypatch):
    def use():
        with Progress(8, is_sweep=True) as progress:
            for number in range(2):
                progress.add(number, f"run {number}", run_config(LOGREG, epochs=4))
            progress.array([0, 1])
            progress.epoch(0, history(1))
            progress.end(1, "failed")

    assert printed(monkeypatch, False, use).startswith("array 1 of 2 runs  epoch 1/4  train loss 1.5000")


def sweep_of(n, height):
    def use():
        with Progress(2 * n, is_sweep=True) as progress:
            for number in range(n):
                progress.add(number, f"lr={number}", run_config(LOGREG, epochs=2, val_size=300))
            for number in range(4, 6):  # what was trained before
                progress.end(number, "stored", {"test/accuracy": 0.5})
            progress.array(range(4))
            for number in range(4):
                progress.epoch(number, history(1, test=0.9, val=(0.7, 0.95, 0.8, 0.75)[number]))
            progress.epoch(0, history(2, test=0.9, val=0.71))
            progress.end(0, "finished")

    return use


def last_screen(out, word="train loss"):
    lines = [re.sub(r"\x1b\[[?0-9]*[A-Za-z]", "", line).rstrip() for line in out.split("\n")]
    start = max(i for i, line in enumerate(lines) if word in line)
    return lines[start:]


def test_a_terminal_shows_a_sweep_as_a_table_best_first(monkeypatch):
    shown = last_screen(printed(monkeypatch, True, sweep_of(7, 24)))
    cells = [line.split() for line in shown]
    assert [" ".join(row) for row in cells[1:8]] == [
        "lr=1 1/2 1.5000 0.9500 training (best)",
        "lr=2 1/2 1.5000 0.8000 training",
        "lr=3 1/2 1.5000 0.7500 training",
        "lr=0 2/2 1.5000 0.7100 finished",
        "lr=4 0.5000 stored",
        "lr=5 0.5000 stored",
        "lr=6 0/2 waiting",
    ]
    assert shown[0].split() == ["run", "epoch", "train", "loss", "val", "accuracy", "state"]
    assert "9/14" in shown[8]  # 1 + 1 + 1 + 2, and two stored of 2 each


def test_a_run_that_stopped_early_has_its_best_epochs_accuracy_in_the_table(monkeypatch):
    def use():
        with Progress(8, is_sweep=True) as progress:
            for number in range(2):
                progress.add(number, f"lr={number}", run_config(LOGREG, epochs=4, val_size=300, patience=1))
            progress.array(range(2))
            for number, accuracy in enumerate((0.8, 0.7)):
                progress.epoch(number, history(2, val=accuracy))
            progress.end(1, "stopped early", {"val/accuracy": 0.9, "test/accuracy": 0.6})

    shown = last_screen(printed(monkeypatch, True, use))
    assert [" ".join(line.split()) for line in shown[1:3]] == [
        "lr=1 2/4 1.5000 0.9000 stopped early (best)",
        "lr=0 2/4 1.5000 0.8000 training",
    ]
    assert "6/8" in shown[3]  # of four epochs none is left


def test_a_sweep_of_a_thousand_runs_is_at_most_a_screen_high(monkeypatch):
    shown = last_screen(printed(monkeypatch, True, sweep_of(1000, 24), height=24))
    assert len([line for line in shown if line]) <= 24
    assert shown[1].split()[:4] == ["lr=1", "1/2", "1.5000", "0.9500"]
    assert any(line.strip() == "and 981 more: 981 waiting" for line in shown)


@pytest.mark.parametrize(
    ("width", "has_epoch", "has_loss"), [(80, True, True), (60, True, False), (52, False, False)]
)
def test_no_figure_is_ever_cut_but_names_and_columns_are(monkeypatch, width, has_epoch, has_loss):
    name = "lr=0.012345678 hidden_dim1=256 dropout=0.123456789 momentum=0.95"

    def use():
        with Progress(20, is_sweep=True) as progress:
            for number in range(2):
                progress.add(number, name, run_config(LOGREG, epochs=10, val_size=300))
            progress.array([0, 1])
            progress.epoch(0, history(1, val=0.9))
            progress.end(1, "pruned")

    shown = last_screen(printed(monkeypatch, True, use, width=width), "0.9000")
    row = shown[0].split()
    assert row[0] == "lr=0.012345678" and "…" in shown[0]
    assert ("1/10" in row, "1.5000" in row, "0.9000" in row) == (has_epoch, has_loss, True)
    assert all(len(line) <= width for line in shown)


def test_a_resumed_run_shows_its_figures_and_a_line_for_new_epochs_only(monkeypatch):
    def use():
        with Progress(8, is_sweep=True) as progress:
            for number in range(2):
                progress.add(number, f"run {number}", run_config(LOGREG, epochs=4))
            progress.resume(0, history(2, 0.75))
            progress.array([0, 1])
            if not terminal.console.is_terminal:
                progress.epoch(0, history(3, 0.9))

    assert last_screen(printed(monkeypatch, True, use))[1].split() == (
        ["run", "0", "2/4", "1.5000", "0.7500", "training", "(best)"]
    )
    assert printed(monkeypatch, False, use) == ""  # run 1 has not reported yet


def test_an_interrupted_command_leaves_its_table_on_the_screen(monkeypatch):
    def use():
        with pytest.raises(KeyboardInterrupt), Progress(4, is_sweep=True) as progress:
            progress.add(0, "run 0", run_config(LOGREG, epochs=4))
            progress.array([0])
            progress.epoch(0, history(1))
            raise KeyboardInterrupt

    after = printed(monkeypatch, True, use).rpartition("\x1b[?25h")[2]  # the live display has ended
    assert "run 0    1/4      1.5000         0.9000" in after


@pytest.mark.parametrize("is_sweep", [True, False])
def test_the_terminals_own_ctrl_c_has_room_beside_the_bar(monkeypatch, is_sweep):
    """Else it goes to the next line, and the table's first line is left over."""

    def use():
        with Progress(12, is_sweep) as progress:
            progress.add(0, NAME, run_config(LOGREG, epochs=12))

    bar = last_screen(printed(monkeypatch, True, use, width=60), "left")[0]
    assert 50 < len(bar) <= 60 - len("^C") - 1


def test_the_time_left_runs_down_between_epochs(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    left = progress_module._TimeLeft()
    left.begin()
    assert str(left) == "-:--:--"
    seen = []
    for seconds, n_left in ((10, 6), (10, 5)):  # ten seconds an epoch
        now[0] += seconds
        left.epoch(n_left)
        seen.append(str(left))
        now[0] += 4
        seen.append(str(left))
        now[0] -= 4
    now[0] += 3600
    assert [*seen, str(left)] == ["0:01:00", "0:00:56", "0:00:50", "0:00:46", "0:00:00"]
