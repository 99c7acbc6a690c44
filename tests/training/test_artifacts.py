import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.configs import LOGREG, MLP, run_config

from lockstep.config.errors import Refused
from lockstep.data.datasets import load
from lockstep.pictures.run_pictures import drawings
from lockstep.results import history_file, predictions_file
from lockstep.training.artifacts import WEIGHTS, differing_weights, read_network, write_run
from lockstep.training.loop import train
from lockstep.training.prediction import predict


@pytest.mark.parametrize(("model", "spaces"), [(LOGREG, ["input"]), (MLP, ["input", "hidden1", "hidden2"])])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_artifacts_give_the_run_back(tmp_path, model, spaces, precision):
    config = run_config(model, epochs=1, precision=precision, val_size=50)
    dataset = load(config.data)
    [run] = train([config], dataset)
    shared, tmp_path = tmp_path, tmp_path / "run"
    tmp_path.mkdir()
    write_run(run, tmp_path)
    predictions_file.write(predict(run, dataset), tmp_path)
    predictions = tmp_path / predictions_file.FILE
    for draw in drawings(run, dataset, "a name", tmp_path, shared, predictions).values():
        draw()
    pictures = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    files = {"samples.png", "confusion.png", "mistakes.png", "curves/loss.png", "curves/accuracy.png"}
    assert pictures == files | {f"pca/{space}.png" for space in spaces}
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
    assert differing_weights(tmp_path / WEIGHTS, network) == {}
    name, parameter = next(network.named_parameters())
    parameter.data[0] = torch.nextafter(parameter.data[0], torch.tensor(9.0, dtype=parameter.dtype))
    assert list(differing_weights(tmp_path / WEIGHTS, network)) == [name]


def saved(weights):
    written = io.BytesIO()
    torch.save(weights, written)
    return written.getvalue()


def bomb():
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", bytes(2**22))
    return written.getvalue()


GOOD = {"W": torch.zeros(64, 10), "b": torch.zeros(10)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            saved(GOOD | {"W": torch.zeros(65, 10)}),
            "not the weights of the network in config.yaml: W",
        ),
        (
            saved({"W": torch.zeros(64, 10)}),
            "not the weights of the network in config.yaml: b",
        ),
        (saved(GOOD | {"more": torch.zeros(1)}), "not the weights of the network in config.yaml: more"),
        (
            saved({name: tensor.int() for name, tensor in GOOD.items()}),
            "not the weights of the network in config.yam",
        ),
        (saved([1, 2]), "can't be read (AttributeError)"),
        (saved(GOOD)[:-40], "can't be read (BadZipFile)"),
        (b"text", "can't be read (BadZipFile)"),
        (bomb(), "can't be read (ValueError)"),
    ],
)
def test_other_weights_are_refused(tmp_path, content, said):
    (tmp_path / "model").mkdir()
    (tmp_path / WEIGHTS).write_bytes(content)
    config = run_config(LOGREG)
    with pytest.raises(Refused) as caught:
        read_network(config, load(config.data).description, tmp_path / WEIGHTS)
    [problem] = caught.value.problems
    assert problem.startswith(f"{WEIGHTS}: {said}")
    (tmp_path / WEIGHTS).write_bytes(saved(GOOD))
    read_network(config, load(config.data).description, tmp_path / WEIGHTS)
