"""Runs trained again from real stores: python -m lockstep reproduce."""

import json
import re
import sqlite3

import mlflow
import pyarrow as pa
import pytest
import torch
from helpers.clone import Clone
from helpers.numerics import BEFORE, TODAY
from pyarrow import parquet

from lockstep.cli import reproduce as reproduce_module
from lockstep.cli.reproduce import reproduce
from lockstep.config.errors import Refused
from lockstep.config.schema import RunConfig
from lockstep.data import datasets
from lockstep.results import predictions_file
from lockstep.tracking.store import Store

RUN = ("data=digits", "data.batch_size=128", "trainer.epochs=2", "model.hidden_dims=[12]", "data.val_size=37")
# 1,400 training instances: 10 batches of 128 an epoch; a loss and an accuracy each, and 2 x 2 evaluations.
# Points: two windows of both and their rest, the same evaluations, the best of the tests, 8 of two spaces.
ALL = "all 56 losses and accuracies, 27 metric points, the weights, 397 predictions, 4 shares of variance"
PICTURES = (
    "confusion.png, curves/accuracy.png, curves/loss.png, mistakes.png, pca/hidden1.png, pca/input.png,"
    " samples.png"
)


class Stored:
    """A run in a store of its own, and what can be done to it there."""

    def __init__(self, clone):
        self.clone, self.client = clone, mlflow.MlflowClient(clone.store)
        assert clone.quick(*RUN)[0] == 0
        [experiment] = self.client.search_experiments(filter_string="name = 'digits'")
        self.experiment = experiment.experiment_id
        [run] = self.client.search_runs([self.experiment])
        self.id, self.name, self.canary = run.info.run_id, run.info.run_name, run.data.tags["lockstep.canary"]
        [config] = (clone.root / "outputs" / "artifacts" / self.id).rglob("config.yaml")
        self.files = config.parent

    def reproduced(self):
        comparison = reproduce(Store(self.clone.store), self.id)
        return comparison.is_identical, list(comparison.lines())

    def sql(self, *statements):
        with sqlite3.connect(self.clone.root / "outputs" / "mlflow.db") as store:
            for statement in statements:
                assert store.execute(statement).rowcount > 0, statement
        store.close()


@pytest.fixture(scope="module")
def stored(tmp_path_factory, empty_store):
    root = tmp_path_factory.mktemp("reproduced")
    return Stored(Clone(root, empty_store))


def test_a_run_is_reproduced_to_the_last_bit_and_what_is_not_compared_is_named(stored):
    code, out, err = stored.clone.verb("reproduce", stored.id)
    assert (code, err) == (0, "")
    assert out == f"{stored.name}: identical, {ALL}\n  not compared: {PICTURES}\n"
    assert re.fullmatch("[0-9a-f]{16}", stored.canary)


def test_on_another_machine_it_is_said_that_bits_may_differ(stored):
    stored.client.set_tag(stored.id, "lockstep.canary", f"{stored.canary} 0123456789abcdef")
    try:
        is_identical, lines = stored.reproduced()
    finally:
        stored.client.set_tag(stored.id, "lockstep.canary", stored.canary)
    assert is_identical
    assert lines[2:] == [
        f"  trained on a machine that computes differently: canary 0123456789abcdef, here {stored.canary};"
        " the same bits can't be expected"
    ]


def test_of_an_earlier_numerics_version_it_is_said_that_bits_may_differ(stored):
    config = RunConfig.from_yaml(stored.files / "config.yaml", stored.clone.store)
    keys = config.run_keys(datasets.load(config.data).description.digest)
    assert stored.client.get_run(stored.id).data.tags["lockstep.numerics_version"] == str(TODAY)
    # As version 2 left it.
    stored.client.delete_tag(stored.id, "lockstep.numerics_version")
    is_identical, lines = stored.reproduced()
    assert (is_identical, lines[1]) == (False, "  differs: how Lockstep computes, since it was recorded")
    stored.client.set_tag(stored.id, "lockstep.run_key", keys[BEFORE])
    is_identical, lines = stored.reproduced()
    stored.client.set_tag(stored.id, "lockstep.run_key", keys[TODAY])
    stored.client.set_tag(stored.id, "lockstep.numerics_version", str(TODAY))
    assert is_identical
    assert lines[2:] == ["  trained with numerics version 2, here 3: the same bits can't be expected"]


def test_what_differs_and_what_is_not_there_is_named_each_with_its_largest_difference(stored):
    hide(stored.files / "curves" / "loss.png")
    path = stored.files / "history.parquet"
    table = parquet.read_table(path)
    loss = table["loss"].to_numpy().copy()
    loss[4:6] += [1e-9, 2e-9]
    parquet.write_table(table.set_column(table.schema.get_field_index("loss"), "loss", pa.array(loss)), path)
    weights = torch.load(stored.files / "model" / "state_dict.pt", weights_only=True)
    bias = weights["output.bias"][3].item()
    weights["output.bias"][3] += 1e-6
    moved = weights["output.bias"][3].item() - bias
    torch.save(weights, stored.files / "model" / "state_dict.pt")
    explained = stored.files / "pca" / "explained_variance.json"
    shares = json.loads(explained.read_text())
    shares["hidden1"][1] += 0.25
    explained.write_text(json.dumps(shares))
    predictions = predictions_file.read(stored.files / predictions_file.FILE)
    predictions["val"].probabilities_NxC[3, 0] += 0.25
    predictions_file.write(predictions, stored.files)
    of_key = "FROM {} WHERE key = 'space/input/silhouette'"
    stored.sql(
        "UPDATE metrics SET value = value + 0.5 WHERE key = 'test/loss' AND step = 20",
        f"DELETE {of_key.format('metrics')}",
        f"DELETE {of_key.format('latest_metrics')}",
    )
    stored.client.log_metric(stored.id, "own/metric", 3)
    assert stored.reproduced() == (
        False,
        [
            f"{stored.name}: not the same",
            "  differs: train/loss, losses and accuracies, from 5 on, by up to 2e-09",
            "  differs: test/loss, metric points, from 20 on, by up to 0.5",
            f"  differs: weights output.bias, by up to {moved:.2g}",
            "  differs: 1 predictions on the val set, probabilities by up to 0.25",
            "  differs: hidden1, shares of variance, from 1 on, by up to 0.25",
            "  not in the store: space/input/silhouette, 1 of 1 metric points",
            "  not in the store: curves/loss.png",
            f"  not compared: own/metric, {PICTURES.replace('curves/loss.png, ', '')}",
        ],
    )
    for garbage in ("{", "[1]", '{"input": 1}', '{"input": ["x"]}', "[" * 10**5):
        explained.write_text(garbage)
        with pytest.raises(Refused, match=r"^pca/explained_variance\.json: can't be read \(\w+\)$"):
            reproduce_module._shares_in(explained)
    lost = ("history.parquet", "model/state_dict.pt", "pca/explained_variance.json", "predictions.parquet")
    for name in lost:
        hide(stored.files / name)
    stored.sql("UPDATE metrics SET value = value - 0.5 WHERE key = 'test/loss' AND step = 20")
    code, out, _ = stored.clone.verb("reproduce", stored.id)
    assert code == 1
    lines = out.splitlines()
    assert lines[:5] == [
        f"{stored.name}: incomplete; what the store has is identical, all 26 metric points",
        "  not in the store: history.parquet",
        "  not in the store: space/input/silhouette, 1 of 1 metric points",
        "  not in the store: model/state_dict.pt",
        "  not in the store: curves/loss.png",
    ]
    assert {line for line in lines if line.endswith((".json", ".parquet"))} == {
        f"  not in the store: {name}" for name in (lost[0], *lost[2:])
    }
    stored.client.delete_tag(stored.id, "lockstep.artifacts")  # as of a run that an earlier version trained
    assert {line for line in stored.reproduced()[1] if line.endswith((".json", ".parquet"))} == {
        f"  not in the store: {name}" for name in (lost[0], lost[2])
    }
    hide(stored.files / "config.yaml")
    with pytest.raises(Refused, match=r"the store has no config\.yaml of it"):
        stored.reproduced()


def hide(path):
    path.rename(path.with_name(f"hidden {path.name}"))


def test_only_runs_that_finished_are_reproduced(stored):
    parent = stored.client.create_run(stored.experiment, tags={"lockstep.kind": "sweep"}).info.run_id
    running = stored.client.create_run(stored.experiment, tags={"lockstep.kind": "run"}).info.run_id
    for wrong, said in ((parent, "not a training run"), (running, "RUNNING")):
        with pytest.raises(Refused, match=f"{wrong}: {said}"):
            reproduce(Store(stored.clone.store), wrong)
    code, out, err = stored.clone.verb("reproduce", "0" * 32)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert "has an id that starts so" in err
