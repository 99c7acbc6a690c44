import json

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from test_train import LOGREG, MLP, run_config

from lockstep.data import load
from lockstep.models import build
from lockstep.report import (
    Outcome,
    RunFailed,
    add_data_pictures,
    draw_data,
    draw_run,
    history_table,
    leaderboard,
    write_run,
)
from lockstep.train import Evaluation, History, train


def history(test=(), val=()):
    evaluations = [Evaluation(2 * i + 2, "test", 1 - a, a) for i, a in enumerate(test)]
    evaluations += [Evaluation(2 * i + 2, "val", 1 - a, a) for i, a in enumerate(val)]
    return History(np.array([2.5, 1.5]), np.array([0.25, 0.5]), evaluations, seconds=1.25)


def outcome(name, test=(), val=(), status="FINISHED", reason=""):
    return Outcome(run_config(), name, f"id-{name}", status, history(test, val), reason)


def shown(outcomes):
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(leaderboard(outcomes))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_leaderboard_ranks_by_last_test_accuracy_and_puts_failures_last():
    lines = shown(
        [
            outcome("early", test=(0.95, 0.90)),
            outcome("sick", status="FAILED", reason="diverged: at once"),
            outcome("late", test=(0.80, 0.92)),
        ]
    )
    assert [line.split() for line in lines] == [
        ["run", "test", "accuracy", "best", "test", "loss", "training", "status"],
        ["late", "0.9200", "0.9200", "0.0800", "1.2", "s", "FINISHED"],
        ["early", "0.9000", "0.9500", "0.1000", "1.2", "s", "FINISHED"],
        ["sick", "1.2", "s", "FAILED:", "diverged:", "at", "once"],
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


def test_history_table_has_every_iteration_and_every_evaluation():
    table = history_table(history(test=(0.75,), val=(0.5,)))
    expected = pd.DataFrame(
        {
            "iteration": [1, 2, 2, 2],
            "split": ["train", "train", "test", "val"],
            "loss": [2.5, 1.5, 0.25, 0.5],
            "accuracy": [0.25, 0.5, 0.75, 0.5],
        }
    )
    pd.testing.assert_frame_equal(table, expected)
    assert len(history_table(history())) == 2


@pytest.mark.parametrize(("model", "spaces"), [(LOGREG, ["input"]), (MLP, ["input", "hidden1", "hidden2"])])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_artifacts_give_the_run_back(tmp_path, model, spaces, precision):
    config = run_config(model, epochs=1, precision=precision, val_size=50)
    dataset = load(config.data)
    [run] = train([config], dataset)
    of_data, tmp_path = tmp_path / "of data", tmp_path / "run"
    tmp_path.mkdir()
    write_run(run, tmp_path)
    draw_run(run, dataset, "a name", tmp_path)
    draw_data(dataset, of_data)
    add_data_pictures(of_data, tmp_path, diverged=False)
    pictures = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert pictures == {"samples.png", "curves/loss.png", "curves/accuracy.png"} | {
        f"pca/{space}.png" for space in spaces
    }
    assert list(json.loads((tmp_path / "pca" / "explained_variance.json").read_text())) == spaces
    table = pd.read_parquet(tmp_path / "history.parquet")
    assert np.array_equal(table.loss[table.split == "train"], run.history.loss_T)
    assert set(table.split) == {"train", "test", "val"}
    module = build(config.model, 64, 10, torch.Generator()).to(getattr(torch, precision))
    weights = torch.load(tmp_path / "model" / "state_dict.pt", weights_only=True)
    assert all(tensor.is_contiguous() for tensor in weights.values())
    module.load_state_dict(weights)
    for kept, trained in zip(module.parameters(), run.network.parameters(), strict=True):
        assert torch.equal(kept, trained)
