"""How runs are named, and which of them are planned."""

import pytest
from helpers.configs import LOGREG, job

from lockstep.sweep import planning
from lockstep.sweep.planning import run_names, show_plan
from lockstep.terminal.console import PlainConsole


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([("optim.lr=0.1", "seed=1")], ["mlp"]),
        ([("optim.lr=0.1", "seed=0"), ("optim.lr=0.1", "seed=1")], ["seed=0", "seed=1"]),
        (
            [("model.hidden_dim1=8", "optim.lr=0.1"), ("model.hidden_dim1=9", "optim.lr=0.2")],
            ["hidden_dim1=8 lr=0.1", "hidden_dim1=9 lr=0.2"],
        ),
        ([("+note=[red]\x1b[31m:x:",), ("+note=b",)], ["+note=[red]\\x1b[31m:x:", "+note=b"]),
        ([("data.path=/a.b/c.npz",), ("data.path=/d.e/f.npz",)], ["path=/a.b/c.npz", "path=/d.e/f.npz"]),
        ([("seed=1",), ("seed=1",)], ["mlp", "mlp"]),
    ],
)
def test_runs_are_named_by_what_tells_them_apart(uri, overrides, names):
    assert run_names([job(uri, *own) for own in overrides]) == names


def test_a_plan_counts_equal_jobs_once(uri, capsys, monkeypatch):
    monkeypatch.setattr(planning, "console", PlainConsole(width=120))
    show_plan([job(uri, f"seed={s}", model=LOGREG, seed=s) for s in (0, 1, 0)], n_jobs=1)
    assert "2 runs in 1 array on 1 worker" in capsys.readouterr().out
