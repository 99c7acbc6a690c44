"""Which runs are planned."""

import pytest
from helpers.configs import LOGREG, job
from helpers.nets import CNN

from lockstep.sweep import planning
from lockstep.sweep.planning import show_plan
from lockstep.terminal.console import PlainConsole


def test_a_plan_counts_equal_jobs_once(uri, capsys, monkeypatch):
    monkeypatch.setattr(planning, "console", PlainConsole(width=120))
    show_plan([job(uri, f"seed={s}", model=LOGREG, seed=s) for s in (0, 1, 0)], n_jobs=1)
    assert "2 runs in 1 array on 1 worker" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "threads", "n_runs", "is_said"),
    [(CNN, 1, 1, True), (CNN, 1, 2, True), (CNN, 1, 3, False), (CNN, 2, 1, False), (LOGREG, 1, 1, False)],
)
def test_idle_cores_are_named_where_a_network_can_use_them(
    uri, capsys, monkeypatch, model, threads, n_runs, is_said
):
    monkeypatch.setattr(planning, "console", PlainConsole(width=120))
    monkeypatch.setattr(planning, "workers_for", lambda configs, n_jobs: n_jobs)
    show_plan([job(uri, f"seed={s}", model=model, seed=s, threads=threads) for s in range(n_runs)], n_jobs=4)
    said = capsys.readouterr().out
    assert (f"cores would be idle: trainer.threads={4 // n_runs} gives" in said) == is_said
