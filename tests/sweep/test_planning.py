"""Which runs are planned."""

from helpers.configs import LOGREG, job

from lockstep.sweep import planning
from lockstep.sweep.planning import show_plan
from lockstep.terminal.console import PlainConsole


def test_a_plan_counts_equal_jobs_once(uri, capsys, monkeypatch):
    monkeypatch.setattr(planning, "console", PlainConsole(width=120))
    show_plan([job(uri, f"seed={s}", model=LOGREG, seed=s) for s in (0, 1, 0)], n_jobs=1)
    assert "2 runs in 1 array on 1 worker" in capsys.readouterr().out
