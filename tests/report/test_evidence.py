"""What the report says of chance, and of the runs together: from predictions in a store."""

import html
import re
import shutil

import numpy as np
import pytest
from helpers.records import recorded_sweep

from lockstep.report import evidence, page
from lockstep.results import predictions_file
from lockstep.results.predictions import Predictions
from lockstep.results.run_result import RunResult
from lockstep.tracking import sweeps
from lockstep.tracking.store import Store

LABEL = np.arange(200) % 2


def predictions(wrong, label_N=LABEL):
    """Predictions that are wrong, with little confidence, on some instances."""
    of_label = np.where(np.isin(np.arange(len(label_N)), list(wrong)), 0.45, 0.9)
    probabilities_NxC = np.stack([np.where(label_N == c, of_label, 1 - of_label) for c in (0, 1)], axis=1)
    prediction_N = probabilities_NxC.argmax(axis=1)
    return Predictions(label_N, prediction_N, probabilities_NxC.astype(np.float32), ("no", "yes"))


class Swept:
    """A sweep in a store of its own, whose runs are wrong on these instances of the test set, by name."""

    def __init__(self, folder, empty_store):
        shutil.copy(empty_store, folder / "mlflow.db")
        self.store, self.folder = Store(f"sqlite:///{folder}/mlflow.db"), folder

    def record(self, runs, with_val=True, params=lambda name: {"optim.lr": name}):
        """Record runs (name, wrong on test, wrong on val), None of both where there are no predictions."""
        rows = []
        for name, test, val in runs:
            metrics = {"test/accuracy": 1 - len(test or range(20)) / 200}
            if with_val:
                metrics["val/accuracy"] = 1 - len(val or range(20)) / 200
            rows.append((params(name), metrics, {}, "FINISHED"))
        parent, ids = recorded_sweep(self.store, rows)
        for (_, test, val), run_id in zip(runs, ids, strict=True):
            if test is not None:
                splits = {"test": predictions(test)} | ({"val": predictions(val)} if with_val else {})
                predictions_file.write(splits, self.folder)
                self.store.client.log_artifact(run_id, str(self.folder / predictions_file.FILE))
        return sweeps.read(self.store, parent)

    def text(self, sweep):
        text = page.build(self.store, sweep).partition("<script>")[0]
        return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


@pytest.fixture
def swept(tmp_path, empty_store):
    return Swept(tmp_path, empty_store)


RUNS = [
    ("0.1", range(10), range(10)),  # the best
    ("0.2", range(5, 18), range(11, 23)),  # other mistakes, about as many
    ("0.3", range(60), range(60)),  # many more
]


def test_the_best_networks_are_told_apart_where_the_test_set_can(swept):
    sweep = swept.record(RUNS)
    found = evidence.of(swept.store, sweep)
    assert [network.run.name for network in found.networks] == [
        "optim.lr=0.1",
        "optim.lr=0.2",
        "optim.lr=0.3",
    ]
    assert [network.accuracy for network in found.networks] == [0.95, 0.935, 0.7]
    assert found.networks[0].difference is None
    near, far = (network.difference for network in found.compared)
    assert (near.n_only_it, near.n_only_best, near.is_real) == (5, 8, False)
    assert (far.n_only_it, far.n_only_best, far.is_real) == (0, 50, True)
    assert found.n_alike == 1
    text = swept.text(sweep)
    assert "1 of the 2 networks that follow can't be told from the best one by 200 test instances" in text
    assert "optim.lr=0.1 the best 0.9500 0.9104 to 0.9726" in text
    assert "optim.lr=0.2 may be chance 0.9350" in text
    assert "optim.lr=0.3 real 0.7000 0.6332 to 0.7593 0 : 50 < 0.0001" in text
    assert "seed=range(0,5)" in text
    assert "partly luck" not in text


def test_without_a_validation_split_the_bests_luck_is_named_and_no_ensemble_is_offered(swept):
    text = swept.text(swept.record(RUNS, with_val=False))
    assert "partly luck" in text
    assert "No ensemble: an ensemble is chosen on a validation split" in text
    assert "data.val_size=" in text


def test_runs_without_predictions_are_named_and_fail_nothing(swept):
    text = swept.text(swept.record([RUNS[0], ("0.2", None, None), RUNS[2]]))
    assert "0 of the 1 networks that follow" in text
    assert "optim.lr=0.2 no predictions on these instances are recorded" in text
    text = swept.text(swept.record([(name, None, None) for name, *_ in RUNS]))
    assert "No predictions of the best run are recorded" in text
    assert "No ensemble: no predictions are recorded" in text


def test_an_ensemble_is_chosen_on_validation_and_measured_on_the_test_set(swept):
    sweep = swept.record(RUNS)
    chosen = evidence.of(swept.store, sweep).chosen
    assert {run.name for run in chosen.members} == {"optim.lr=0.1", "optim.lr=0.2"}
    assert sum(chosen.weights) == pytest.approx(1)
    assert chosen.best.name == "optim.lr=0.1"
    assert (chosen.alone["val"].accuracy, chosen.together["val"].accuracy) == (0.95, 1)
    assert chosen.together["test"].accuracy == 0.975  # wrong where both are
    text = swept.text(sweep)
    assert "Best run 0.9500, ensemble of 2 of your runs 0.9750 on the test set" in text
    assert f'lockstep.load("{sweep.run_id}").ensemble()' in text


def test_runs_on_another_validation_split_are_no_members(swept):
    sweep = swept.record(RUNS, params=lambda name: {"data.val_size": "1" if name == "0.2" else "2"})
    chosen = evidence.of(swept.store, sweep).chosen
    assert [run.params["data.val_size"] for run in chosen.members] == ["2"]
    assert "No average of these runs is better" in swept.text(sweep)


def test_settings_with_repeats_get_a_test_over_repeats(swept):
    wrong = {("0.1", 0): 10, ("0.1", 1): 12, ("0.1", 2): 11, ("0.2", 0): 40, ("0.2", 1): 44, ("0.2", 2): 41}
    wrong["0.3", 0] = 50  # no repeat
    runs = [(f"{lr} {seed}", range(n), range(n)) for (lr, seed), n in wrong.items()]
    sweep = swept.record(runs, params=lambda name: dict(zip(("optim.lr", "seed"), name.split(), strict=True)))
    found = evidence.of(swept.store, sweep)
    (best, said, none), (other, _, p_value) = found.settings
    assert (best.name, other.name, none) == ("optim.lr=0.1", "optim.lr=0.2", None)
    assert said == "0.9450 ± 0.0050 (n = 3)"
    assert p_value < 0.01
    text = swept.text(sweep)
    assert "Settings, over their repeats" in text
    assert "seed=range(0,5)" not in text


def test_networks_are_compared_with_others_of_their_fold_only(swept):
    """Whatever labels the instances of folds have: those of sorted classes have the same in each."""

    def params(name):
        return {"optim.lr": name[:-1], "data.fold": name[-1], "seed": "0"}

    asked = [("0.1 0", range(9), []), ("0.2 0", range(19), []), ("0.1 1", range(5), []), ("0.2 1", [], [])]
    sweep = swept.record([(name.replace(" ", ""), *wrong) for name, *wrong in asked], params=params)
    found = evidence.of(swept.store, sweep)
    best, *others = found.networks
    is_compared = {network.run.params["data.fold"]: network.difference is not None for network in others}
    assert len(others) == 3
    assert [network.run.params["data.fold"] for network in found.compared] == [best.run.params["data.fold"]]
    assert is_compared[str(1 - int(best.run.params["data.fold"]))] is False
    text = swept.text(sweep)
    assert "seed 0 fold 1: " in text


@pytest.mark.parametrize("key", ["path", "test_path", "test_size", "split_seed", "fold", "folds"])
def test_networks_are_compared_on_the_same_instances_only(swept, key):
    """Whatever their labels: test sets that are drawn from a file of sorted classes have the same."""

    def params(name):
        return {"optim.lr": name[:-1], f"data.{key}": name[-1]}

    runs = [(name, range(n), []) for name, n in {"0.11": 9, "0.12": 29, "0.21": 39, "0.22": 59}.items()]
    found = evidence.of(swept.store, swept.record(runs, params=params))
    values = [network.run.params[f"data.{key}"] for network in found.networks]
    assert sorted(values) == ["1", "1", "2", "2"]
    assert [network.run.params[f"data.{key}"] for network in found.compared] == [values[0]]


def test_copies_of_a_table_are_the_same_instances():
    csv, parquet, other = (
        RunResult("a run", "", digest, {"data.path": path}, (), "FINISHED", {})
        for digest, path in (("d", "t.csv"), ("d", "t.parquet"), ("e", "t.parquet"))
    )
    assert evidence._has_instances_of(csv, parquet)
    assert not evidence._has_instances_of(csv, other)
