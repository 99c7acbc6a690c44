"""Sweeps as the store has them: what was swept, what is best, in words."""

import mlflow
import pytest
from helpers.records import recorded_sweep

from lockstep.report import wording
from lockstep.results.winner import Ranking
from lockstep.tracking import sweeps
from lockstep.tracking.store import Store
from lockstep.tracking.sweeps import STORED_RUNS


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")


def params(lr, width, seed=0):
    return {"optim.lr": str(lr), "model.hidden_dim1": str(width), "seed": str(seed), "derived": str(width)}


def test_rows_are_ranked_and_repeats_are_one_row(store):
    accuracies = {(0.1, 32): (0.90, 0.94), (0.01, 32): (0.80, 0.82), (0.1, 64): (0.95,)}
    runs = [
        (params(lr, width, seed), {"test/accuracy": accuracy}, {}, "FINISHED")
        for (lr, width), of_seeds in accuracies.items()
        for seed, accuracy in enumerate(of_seeds)
    ]
    runs.append((params(1.0, 64), {}, {"lockstep.reason": "diverged: so it did"}, "FAILED"))
    runs.append((params(0.5, 64), {"test/accuracy": 0.99}, {"lockstep.pruned_at": "1"}, "FINISHED"))
    sweep = sweeps.read(store, recorded_sweep(store, runs)[0])
    assert sweep.swept == ("optim.lr", "model.hidden_dim1")  # typed; seed and what follows from others not
    assert [row.mean("test/accuracy") for row in sweep.rows] == pytest.approx([0.95, 0.92, 0.81])
    assert [len(row.runs) for row in sweep.rows] == [1, 2, 2]
    assert sweep.rows[1].std("test/accuracy") == pytest.approx(0.0282842712)
    assert sweep.rows[0].std("test/accuracy") is None
    assert [run.reason for run in sweep.failed] == ["diverged: so it did"]
    assert [run.pruned_at for run in sweep.pruned] == [1]
    assert sweep.summary == {
        "runs": 7,
        "runs_failed": 1,
        "runs_pruned": 1,
        "best/test/accuracy": 0.95,
    }
    assert wording.sentence(sweep) == (
        f"7 runs on {sweep.experiment} over optim.lr (0.01, 0.1, 0.5, 1.0) and model.hidden_dim1 (32, 64)."
        " Best by test accuracy: lr=0.1 hidden_dim1=64, 0.9500. 1 failed. 1 pruned."
    )


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"runs": 1, "experiments": []}'])
def test_a_list_of_members_that_is_damaged_is_named(store, content, tmp_path):
    run_id, _ = recorded_sweep(store, [(params(0.1, 32), {"test/accuracy": 0.9}, {}, "FINISHED")])
    (tmp_path / sweeps.MEMBERS).write_text(content)
    store.client.log_artifact(run_id, str(tmp_path / sweeps.MEMBERS))
    with pytest.raises(ValueError, match=f"members.json of run {run_id} in the store is damaged"):
        sweeps.read(store, run_id)


def test_with_a_validation_split_the_test_set_decides_nothing(store):
    runs = [
        (params(0.1, 32), {"val/accuracy": 0.9, "test/accuracy": 0.8}, {}, "FINISHED"),
        (params(0.2, 32), {"val/accuracy": 0.8, "test/accuracy": 0.9}, {}, "FINISHED"),
    ]
    sweep = sweeps.read(store, recorded_sweep(store, runs)[0])
    assert sweep.metric == "val/accuracy"
    assert [row.runs[0].params["optim.lr"] for row in sweep.rows] == ["0.1", "0.2"]
    assert "Best by validation accuracy: lr=0.1, 0.9000 (0.8000 on the test set)." in wording.sentence(sweep)


@pytest.mark.parametrize(
    "key",
    ["tracking.pictures", "trainer.checkpoint_seconds", "data.path", "data.root", "tracking.experiment"],
)
def test_what_changes_no_number_is_not_swept(store, key):
    runs = [
        ({**params(0.1, 32, seed), key: str(seed)}, {"test/accuracy": 0.5 + seed / 10}, {}, "FINISHED")
        for seed in range(2)
    ]
    sweep = sweeps.read(store, recorded_sweep(store, runs)[0])
    assert sweep.swept == ()
    said = "Test accuracy: 0.5500 ± 0.0707 (n = 2)."  # of seeds none is called best
    assert wording.sentence(sweep) == f"2 runs on {sweep.experiment}. {said}"


def test_runs_of_an_earlier_version_have_the_settings_that_came_later(store):
    later = {"optim.clip_norm": "null", "trainer.label_smoothing": "0.0"}
    runs = [
        (params(0.1, 32, 0), {"test/accuracy": 0.5}, {}, "FINISHED"),
        (params(0.1, 32, 1) | later, {"test/accuracy": 0.6}, {}, "FINISHED"),
        (params(0.1, 32, 2) | later | {"optim.clip_norm": "1.0"}, {"test/accuracy": 0.7}, {}, "FINISHED"),
    ]
    sweep = sweeps.read(store, recorded_sweep(store, runs)[0])
    assert sweep.swept == ("optim.clip_norm",)
    assert [len(row.runs) for row in sweep.rows] == [1, 2]


def test_runs_have_the_names_that_the_sweep_gave_them(store):
    parent, [first, second] = recorded_sweep(
        store, [(params(lr, 32), {"test/accuracy": lr}, {}, "FINISHED") for lr in (0.1, 0.2)]
    )
    experiment = store.client.get_experiment(store.client.get_run(first).info.experiment_id).name
    names = {first: ["a=1", "experiment=b", "a=1"], second: ["a=2"]}
    sweeps.record(store, parent, names, [experiment], Ranking("test/accuracy"), second, [second])
    assert [run.name for run in sweeps.read(store, parent).runs] == ["a=1 = experiment=b", "a=2"]


def test_runs_that_were_stored_before_belong_to_it_too(store):
    _, [earlier] = recorded_sweep(store, [(params(0.3, 32), {"test/accuracy": 0.7}, {}, "FINISHED")])
    parent, [own] = recorded_sweep(store, [(params(0.4, 32), {"test/accuracy": 0.6}, {}, "FINISHED")])
    store.client.log_dict(parent, {"runs": [earlier, "0" * 32]}, STORED_RUNS)
    sweep = sweeps.read(store, parent)
    assert [run.run_id for run in sweep.runs] == [own, earlier]
    assert [row.runs[0].run_id for row in sweep.rows] == [earlier, own]


def test_a_run_that_is_no_sweep_is_refused(store):
    _, [run] = recorded_sweep(store, [(params(0.3, 32), {}, {}, "FINISHED")])
    with pytest.raises(ValueError, match="not a sweep's parent"):
        sweeps.read(store, run)
    with pytest.raises(mlflow.MlflowException):
        sweeps.read(store, "0" * 32)
