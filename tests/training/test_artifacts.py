import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.configs import LOGREG, MLP, run_config

from lockstep.data.datasets import load
from lockstep.pictures.run_pictures import draw_run
from lockstep.results.history import Evaluation, History
from lockstep.training.artifacts import history_table, read_history, write_run
from lockstep.training.loop import train
from lockstep.training.networks import build


def history(test=(), val=()):
    evaluations = [Evaluation(2 * i + 2, "test", 1 - a, a) for i, a in enumerate(test)]
    evaluations += [Evaluation(2 * i + 2, "val", 1 - a, a) for i, a in enumerate(val)]
    return History(np.array([2.5, 1.5]), np.array([0.25, 0.5]), evaluations, seconds=1.25)


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
    pd.testing.assert_frame_equal(table.to_pandas(), expected)
    assert len(history_table(history())) == 2


@pytest.mark.parametrize(("model", "spaces"), [(LOGREG, ["input"]), (MLP, ["input", "hidden1", "hidden2"])])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_artifacts_give_the_run_back(tmp_path, model, spaces, precision):
    config = run_config(model, epochs=1, precision=precision, val_size=50)
    dataset = load(config.data)
    [run] = train([config], dataset)
    shared, tmp_path = tmp_path, tmp_path / "run"
    tmp_path.mkdir()
    write_run(run, tmp_path)
    draw_run(run, dataset, "a name", tmp_path, shared)
    pictures = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert pictures == {"samples.png", "curves/loss.png", "curves/accuracy.png"} | {
        f"pca/{space}.png" for space in spaces
    }
    assert list(json.loads((tmp_path / "pca" / "explained_variance.json").read_text())) == spaces
    table = pd.read_parquet(tmp_path / "history.parquet")
    assert np.array_equal(table.loss[table.split == "train"], run.history.loss_T)
    assert set(table.split) == {"train", "test", "val"}
    again = read_history(tmp_path)
    assert np.array_equal(again.accuracy_T, run.history.accuracy_T)
    assert again.of("val") == run.history.of("val")
    assert again.of("test") == run.history.of("test")
    module = build(config.model, 64, 10, torch.Generator()).to(getattr(torch, precision))
    weights = torch.load(tmp_path / "model" / "state_dict.pt", weights_only=True)
    assert all(tensor.is_contiguous() for tensor in weights.values())
    module.load_state_dict(weights)
    for kept, trained in zip(module.parameters(), run.network.parameters(), strict=True):
        assert torch.equal(kept, trained)
