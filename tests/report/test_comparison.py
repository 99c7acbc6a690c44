"""Two sweeps side by side."""

import json
import re
import shutil

import pytest
from helpers.records import recorded_sweep

from lockstep.report import comparison
from lockstep.tracking import sweeps
from lockstep.tracking.store import Store


def pair_of(store, second, by_val=False):
    """A sweep over lr, and one with these params beside its lr; of accuracies 0.8, 0.9, and 0.85."""
    metric = "val/accuracy" if by_val else "test/accuracy"
    runs = [
        ({"optim.lr": lr, "model": "mlp"}, {"test/accuracy": y}) for lr, y in (("0.1", 0.8), ("0.2", 0.9))
    ]
    first, [_, best] = recorded_sweep(store, [(*run, {}, "FINISHED") for run in runs])
    other, [run] = recorded_sweep(store, [(second, {metric: 0.85, "test/accuracy": 0.85}, {}, "FINISHED")])
    for run_id in (best, run):
        for step in (1, 2):
            store.client.log_metric(run_id, "train/loss", 1 / step, step=step)
    return tuple(sweeps.read(store, sweep) for sweep in (first, other))


@pytest.fixture
def store(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Store(f"sqlite:///{tmp_path}/mlflow.db")


def test_it_says_what_differs_and_which_winner_is_better(store, tmp_path):
    pair = pair_of(store, {"optim.lr": "0.2", "model": "logreg"})
    assert comparison.differences(pair) == [
        ("optim.lr", ["0.1, 0.2", "0.2", "0.2", "0.2"]),
        ("model", ["mlp", "logreg", "mlp", "logreg"]),
    ]
    text = comparison.write(store, pair, tmp_path).read_text()
    assert "By the test/accuracy of their winners, A is ahead: A 0.9000, B 0.8500." in text
    assert [row.split("</td>")[0] for row in re.findall(r"<tr><td>1</td><td>(.*?)</tr>", text)] == [
        "0.9000",
        "0.8500",
    ]
    [chart] = re.findall(r'id="curves-data">(.*?)</script>', text, re.S)
    of_winners = {trace["name"] for trace in json.loads(chart.replace("<\\/", "</"))["data"]}
    assert of_winners == {"A: optim.lr=0.2 model=mlp", "B: optim.lr=0.2 model=logreg"}


def test_equal_settings_and_other_rankings(store, tmp_path):
    pair = pair_of(store, {"optim.lr": "0.2", "model": "mlp"}, by_val=True)
    text = comparison.write(store, pair, tmp_path).read_text()
    assert "By the test/accuracy of their winners, A is ahead" in text  # B's own metric is val/accuracy
    text = comparison.write(store, (pair[0], pair[0]), tmp_path).read_text()
    assert "neither is ahead" in text
    assert "Nothing: their runs have the same values" in text
    text = comparison.write(store, pair[::-1], tmp_path).read_text()
    assert "B is ahead: A 0.8500, B 0.9000" in text
    [chart] = re.findall(r'id="curves-data">(.*?)</script>', text, re.S)
    traces = json.loads(chart.replace("<\\/", "</"))["data"]
    widths = {trace["name"][0]: trace["line"]["width"] for trace in traces}
    assert widths["B"] > widths["A"]
