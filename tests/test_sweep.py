"""The runs of a command in one process, on a store of their own."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from test_train import LOGREG, MLP, run_config, sgd

from lockstep import artifacts, sweep
from lockstep.config import Refused
from lockstep.plan import Job
from lockstep.sweep import carry_out, check_runs, run_names


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


def job(uri, *overrides, epochs=1, **settings):
    config = run_config(epochs=epochs, **settings)
    tracking = config.tracking.model_copy(update={"uri": uri, "experiment": "digits"})
    return Job(config.model_copy(update={"tracking": tracking}), overrides)


def recorded(uri):
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id])
    return {run.info.run_name: (run.info.status, run.data.tags.get("lockstep.reason")) for run in runs}


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([("optim.lr=0.1", "seed=1")], ["mlp"]),
        ([("optim.lr=0.1", "seed=0"), ("optim.lr=0.1", "seed=1")], ["seed=0", "seed=1"]),
        (
            [("model.hidden_dim1=8", "optim.lr=0.1"), ("model.hidden_dim1=9", "optim.lr=0.2")],
            ["hidden_dim1=8 lr=0.1", "hidden_dim1=9 lr=0.2"],
        ),
        ([("data.path=/a.b/c.npz",), ("data.path=/d.e/f.npz",)], ["path=/a.b/c.npz", "path=/d.e/f.npz"]),
        ([("seed=1",), ("seed=1",)], ["mlp", "mlp"]),
    ],
)
def test_runs_are_named_by_what_tells_them_apart(uri, overrides, names):
    assert run_names([job(uri, *own) for own in overrides]) == names


def test_check_lists_every_problem_and_leaves_the_store_alone(uri, tmp_path):
    jobs = [job(uri, batch_size=5000), job(uri, val_size=1437), job("sqlite:///elsewhere.db")]
    with pytest.raises(Refused) as caught:
        check_runs([job.config for job in jobs])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "data.batch_size=5000",
        "data.val_size=1437",
        "tracking.uri",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_breaks_is_failed_and_the_others_go_on(uri, monkeypatch):
    draw = artifacts.draw_run

    def breaks_once(run, dataset, name, folder, shared):
        if name == "seed=0":
            raise OSError("no room left")
        draw(run, dataset, name, folder, shared)

    monkeypatch.setattr(artifacts, "draw_run", breaks_once)
    jobs = [job(uri, f"seed={seed}", model=LOGREG, seed=seed) for seed in (0, 1)]
    outcomes = carry_out(jobs, sweep=["seed=0,1"], n_jobs=1)
    assert [outcome.status for outcome in outcomes] == ["FAILED", "FINISHED"]
    assert recorded(uri) == {
        "sweep of 2 runs": ("FAILED", None),
        "seed=0": ("FAILED", "OSError: no room left"),
        "seed=1": ("FINISHED", None),
    }


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_run_is_killed_and_so_is_its_sweep(uri, monkeypatch, interruption):
    def interrupted(run, dataset, name, folder, shared):
        if name == "seed=1":
            raise interruption

    monkeypatch.setattr(artifacts, "draw_run", interrupted)
    with pytest.raises(type(interruption)):
        carry_out([job(uri, f"seed={seed}") for seed in range(3)], sweep=["seed=0,1,2"], n_jobs=1)
    assert recorded(uri) == {
        "sweep of 3 runs": ("KILLED", None),
        "seed=0": ("FINISHED", None),
        "seed=1": ("KILLED", None),
    }


@pytest.mark.parametrize(("val_size", "says"), [(0, True), (100, False)])
def test_a_ranking_by_test_accuracy_says_so(uri, capsys, monkeypatch, val_size, says):
    monkeypatch.setattr(sweep.console, "_file", None)  # rich then follows sys.stdout, which capsys replaced
    carry_out(
        [job(uri, f"seed={s}", model=MLP, seed=s, val_size=val_size) for s in (0, 1)], sweep=["seed=0,1"]
    )
    assert ("Ranked by test accuracy, as there is no validation split" in capsys.readouterr().out) == says


def pictures_of(uri):
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    return {
        run.info.run_name: {
            str(path.relative_to(folder))
            for folder in [Path(run.info.artifact_uri.removeprefix("file://"))]
            for path in folder.rglob("*")
            if path.is_file()
        }
        for run in runs
        if run.data.tags["lockstep.kind"] == "run"
    }


def with_pictures(job, pictures):
    tracking = job.config.tracking.model_copy(update={"pictures": pictures})
    return Job(job.config.model_copy(update={"tracking": tracking}), job.overrides)


NUMBERS = {"config.yaml", "history.parquet", "model/state_dict.pt"}
PICTURES = {
    *("samples.png", "curves/loss.png", "curves/accuracy.png", "pca/explained_variance.json"),
    *("pca/input.png", "pca/hidden1.png", "pca/hidden2.png"),
}


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    ("pictures", "drawn"), [("none", []), ("best", ["lr=0.5"]), ("all", ["lr=0.5", "lr=0.001"])]
)
def test_whose_pictures_are_drawn(uri, n_jobs, pictures, drawn):
    lrs = ("0.001", "0.5", "0.0001") if pictures != "all" else ("0.001", "0.5")
    jobs = [with_pictures(job(uri, f"lr={lr}", optim=sgd(float(lr))), pictures) for lr in lrs]
    outcomes = carry_out(jobs, sweep=["optim.lr=..."], n_jobs=n_jobs)
    assert [outcome.status for outcome in outcomes] == ["FINISHED"] * len(lrs)
    assert pictures_of(uri) == {
        f"lr={lr}": NUMBERS | (PICTURES if f"lr={lr}" in drawn else set()) for lr in lrs
    }


def test_explained_variance_holds_the_input_space_and_each_hidden_layer(uri):
    [outcome] = carry_out([job(uri, model=MLP)], sweep=None)
    run = mlflow.MlflowClient(uri).get_run(outcome.run_id)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    explained = json.loads((folder / "pca" / "explained_variance.json").read_text())
    assert list(explained) == ["input", "hidden1", "hidden2"]


def test_a_sweeps_runs_are_recorded_alike_whatever_the_number_of_workers(uri, tmp_path):
    jobs = [job(uri, f"seed={s}", model=m, seed=s) for s, m in enumerate((MLP, LOGREG, MLP))]
    one, two = (carry_out(jobs, ["seed=..."], n_jobs=n) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert (a.name, a.status, a.history.evaluations) == (b.name, b.status, b.history.evaluations)
        assert np.array_equal(a.history.loss_T, b.history.loss_T)
    client = mlflow.MlflowClient(uri)
    for a, b in zip(one, two, strict=True):
        points = [
            [(p.step, p.value) for p in client.get_metric_history(outcome.run_id, "train/loss")]
            for outcome in (a, b)
        ]
        assert points[0] == points[1] != []
