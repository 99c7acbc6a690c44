import io
import logging

import numpy as np
from rich.console import Console
from test_train import LOGREG, run_config

from lockstep import terminal
from lockstep.train import Evaluation, History


def run(diverged_at=None):
    evaluations = [Evaluation(4, "test", 0.25, 0.9), Evaluation(4, "val", 0.5, 0.8)]
    return History(
        np.array([9.0, 9.0, 1.0, 2.0]), np.array([0.0, 0.0, 0.5, 0.75]), evaluations, 2, 3.21, diverged_at
    )


def printed(monkeypatch, is_terminal, use):
    out = io.StringIO()
    monkeypatch.setattr(
        terminal, "console", Console(file=out, force_terminal=is_terminal, width=80, highlight=False)
    )
    use()
    return out.getvalue()


def epoch(history):
    def use():
        with terminal.Progress(12) as progress:
            progress.epoch("lr=0.1 [x]", run_config(LOGREG, epochs=12), history)

    return use


LINE = (
    "lr=0.1 [x]  epoch  2/12  train loss 1.5000 acc 0.6250"
    "  val loss 0.5000 acc 0.8000  test loss 0.2500 acc 0.9000  3.2 s"
)


def test_a_line_an_epoch_where_there_is_no_terminal(monkeypatch):
    assert printed(monkeypatch, False, epoch(run())) == LINE + "\n"


def test_a_line_an_epoch_above_a_bar_where_there_is_one(monkeypatch):
    out = printed(monkeypatch, True, epoch(run()))
    assert LINE in out
    assert "1/12" in out


def test_a_diverged_run_says_when(monkeypatch):
    assert printed(monkeypatch, False, epoch(run(diverged_at=4))) == "lr=0.1 [x]  diverged at iteration 4\n"


def test_log_messages_are_printed_once_however_often_asked(monkeypatch):
    log = logging.getLogger("lockstep")
    before, level = list(log.handlers), log.level
    try:

        def use():
            terminal.show_log()
            terminal.show_log()
            log.info("MNIST: fetching from [somewhere]")

        assert printed(monkeypatch, False, use) == "MNIST: fetching from [somewhere]\n"
    finally:
        log.handlers[:] = before
        log.setLevel(level)
