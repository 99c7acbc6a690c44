import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.configs import LOGREG, MLP, run_config

from lockstep.data.datasets import load
from lockstep.pictures.run_pictures import drawings
from lockstep.results import history_file
from lockstep.training.artifacts import WEIGHTS, differing_weights, read_network, write_run
from lockstep.training.loop import train


@pytest.mark.parametrize(("model", "spaces"), [(LOGREG, ["input"]), (MLP, ["input", "hidden1", "hidden2"])])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_artifacts_give_the_run_back(tmp_path, model, spaces, precision):
    config = run_config(model, epochs=1, precision=precision, val_size=50)
    dataset = load(config.data)
    [run] = train([config], dataset)
    shared, tmp_path = tmp_path, tmp_path / "run"
    tmp_path.mkdir()
    write_run(run, tmp_path)
    for draw in drawings(run, dataset, "a name", tmp_path, shared).values():
        draw()
    pictures = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert pictures == {"samples.png", "curves/loss.png", "curves/accuracy.png"} | {
        f"pca/{space}.png" for space in spaces
    }
    assert list(json.loads((tmp_path / "pca" / "explained_variance.json").read_text())) == spaces
    table = pd.read_parquet(tmp_path / "history.parquet")
    assert np.array_equal(table.loss[table.split == "train"], run.history.loss_T)
    assert set(table.split) == {"train", "test", "val"}
    again = history_file.read(tmp_path)
    assert np.array_equal(again.accuracy_T, run.history.accuracy_T)
    assert again.of("val") == run.history.of("val")
    assert again.of("test") == run.history.of("test")
    weights = torch.load(tmp_path / WEIGHTS, weights_only=True)
    assert len(weights) == 2 * len(spaces)
    assert all(tensor.is_contiguous() for tensor in weights.values())
    network = read_network(config, dataset.description, tmp_path / WEIGHTS)
    for kept, trained in zip(network.parameters(), run.network.parameters(), strict=True):
        assert kept.dtype == getattr(torch, precision)
        assert torch.equal(kept, trained)
    assert differing_weights(tmp_path / WEIGHTS, network) == []
    name, parameter = next(network.named_parameters())
    parameter.data[0] = torch.nextafter(parameter.data[0], torch.tensor(9.0, dtype=parameter.dtype))
    assert differing_weights(tmp_path / WEIGHTS, network) == [name]
