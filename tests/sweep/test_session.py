"""The runs of a command in one process, on a store of their own."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest
from helpers.configs import LOGREG, MLP, job, sgd, with_pictures
from helpers.faults import contents
from helpers.records import carried_out, recorded, statuses

from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.run_request import RunRequest
from lockstep.pictures import run_pictures
from lockstep.recovery.run_folder import unfinished
from lockstep.sweep import session
from lockstep.sweep.ledger import Ledger
from lockstep.training import artifacts


def test_a_run_that_breaks_is_failed_and_the_others_go_on(uri, monkeypatch):
    write_run = artifacts.write_run

    def breaks_once(run, folder):
        if run.config.seed == 0:
            raise OSError("no room left")
        write_run(run, folder)

    monkeypatch.setattr(artifacts, "write_run", breaks_once)
    jobs = [job(uri, f"seed={seed}", model=LOGREG, seed=seed) for seed in (0, 1)]
    results = carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert [result.status for result in results] == ["FAILED", "FINISHED"]
    assert recorded(uri) == {
        "seed, 2 runs": ("FAILED", None),
        "seed=0": ("FAILED", "OSError: no room left"),
        "seed=1": ("FINISHED", None),
    }


def test_where_somebody_removes_the_run_folders_no_run_stays_running(uri, monkeypatch):
    receive = Ledger.receive

    def removed_first(ledger, number, event):
        shutil.rmtree(unfinished(), ignore_errors=True)  # the uploader may write there at this moment
        receive(ledger, number, event)

    monkeypatch.setattr(Ledger, "receive", removed_first)
    jobs = [job(uri, f"seed={seed}", model=LOGREG, seed=seed, epochs=3) for seed in (0, 1)]
    results = carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert [result.status for result in results] == ["FAILED", "FAILED"]
    assert {status for status, _ in recorded(uri).values()} == {"FAILED"}
    monkeypatch.undo()
    again = carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert [result.status for result in again] == ["FINISHED", "FINISHED"]


def test_a_picture_that_cannot_be_drawn_is_a_warning_and_a_tag(uri, monkeypatch, caplog):
    monkeypatch.setattr(run_pictures, "_draw_curves", lambda *_: 1 / 0)
    [run] = carried_out([job(uri, model=LOGREG)], sweep=None)
    assert run.status == "FINISHED"
    failure = "no curves: ZeroDivisionError: division by zero"
    assert f"logreg: {failure}" in caplog.text
    tags = mlflow.MlflowClient(uri).get_run(run.run_id).data.tags
    assert tags["lockstep.warning"] == failure


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_run_is_killed_and_so_is_its_sweep(uri, monkeypatch, interruption):
    def interrupted(run, folder):
        if run.config.seed == 1:
            raise interruption

    monkeypatch.setattr(artifacts, "write_run", interrupted)
    with pytest.raises(type(interruption)):
        carried_out(
            [job(uri, f"seed={s}", seed=s) for s in range(3)],
            sweep=["seed=0,1,2"],
            launcher=LauncherConfig(n_jobs=1),
        )
    assert recorded(uri) == {
        "seed, 3 runs": ("KILLED", None),
        "seed=0": ("FINISHED", None),
        "seed=1": ("KILLED", None),
    }


@pytest.mark.parametrize(("val_size", "says"), [(0, True), (100, False)])
def test_a_ranking_by_test_accuracy_says_so(uri, capsys, monkeypatch, val_size, says):
    monkeypatch.setattr(session.console, "_file", None)  # rich then follows sys.stdout, which capsys replaced
    carried_out(
        [job(uri, f"seed={s}", model=MLP, seed=s, val_size=val_size) for s in (0, 1)],
        sweep=["seed=0,1"],
        launcher=LauncherConfig(n_jobs=1),
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


NUMBERS = {"config.yaml", "history.parquet", "model/state_dict.pt"}
PREDICTIONS = {"predictions.parquet"}
PICTURES = {
    *("samples.png", "curves/loss.png", "curves/accuracy.png", "pca/explained_variance.json"),
    *("pca/input.png", "pca/hidden1.png", "pca/hidden2.png", "confusion.png", "mistakes.png"),
}


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    ("pictures", "drawn"), [("none", []), ("best", ["lr=0.5"]), ("all", ["lr=0.5", "lr=0.001"])]
)
def test_whose_pictures_are_drawn(uri, n_jobs, pictures, drawn):
    lrs = ("0.001", "0.5", "0.0001") if pictures != "all" else ("0.001", "0.5")
    jobs = [with_pictures(job(uri, f"lr={lr}", optim=sgd(float(lr))), pictures) for lr in lrs]
    results = carried_out(jobs, sweep=["optim.lr=..."], launcher=LauncherConfig(n_jobs=n_jobs))
    assert [result.status for result in results] == ["FINISHED"] * len(lrs)
    of_all = NUMBERS if pictures == "none" else NUMBERS | PREDICTIONS
    assert pictures_of(uri) == {
        f"lr={lr}": of_all | (PICTURES if f"lr={lr}" in drawn else set()) for lr in lrs
    }


def test_explained_variance_holds_the_input_space_and_each_hidden_layer(uri):
    carried_out([job(uri, model=MLP)], sweep=None)
    [run] = mlflow.MlflowClient(uri).search_runs(["1"])
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    explained = json.loads((folder / "pca" / "explained_variance.json").read_text())
    assert list(explained) == ["input", "hidden1", "hidden2"]


def test_a_sweeps_runs_are_recorded_alike_whatever_the_number_of_workers(uri, tmp_path):
    jobs = [job(uri, f"seed={s}", model=m, seed=s) for s, m in enumerate((MLP, LOGREG, MLP))]
    again = [RunRequest(j.config.model_copy(update={"rerun": True}), j.overrides) for j in jobs]
    one, two = (
        carried_out(jobs, ["seed=..."], launcher=LauncherConfig(n_jobs=1)),
        carried_out(again, ["seed=..."], launcher=LauncherConfig(n_jobs=2)),
    )
    client = mlflow.MlflowClient(uri)
    for a, b in zip(one, two, strict=True):
        assert (a.name, a.status, a.is_stored, b.is_stored) == (b.name, b.status, False, False)
        assert a.metrics["test/loss"] == b.metrics["test/loss"]
        runs = client.search_runs(["1"], f"attributes.run_name = '{a.name}'")
        points = [
            [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, "train/loss")]
            for run in runs
        ]
        assert len(points) == 2
        assert points[0] == points[1] != []


def test_only_runs_that_the_store_lacks_are_trained(uri):
    jobs = [job(uri, f"seed={s}", model=LOGREG, seed=s) for s in range(3)]
    first = carried_out(jobs[:2], ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert statuses(first) == [("FINISHED", False)] * 2
    second = carried_out(jobs, ["seed=0,1,2"], launcher=LauncherConfig(n_jobs=1))
    assert statuses(second) == [("FINISHED", True)] * 2 + [("FINISHED", False)]
    for stored, trained in zip(second[:2], first, strict=True):
        assert {key: stored.metrics[key] for key in trained.metrics} == trained.metrics
    before = recorded(uri)
    third = carried_out(jobs, ["seed=0,1,2"], launcher=LauncherConfig(n_jobs=1))
    assert statuses(third) == [("FINISHED", True)] * 3
    assert recorded(uri) == before
    assert len(before) == 5  # three runs, two sweeps


def test_a_run_without_a_sweep_always_trains(uri):
    for _ in range(2):
        [result] = carried_out([job(uri, model=LOGREG)], sweep=None)
        assert statuses([result]) == [("FINISHED", False)]
    assert len(mlflow.MlflowClient(uri).search_runs(["1"])) == 2


def test_equal_jobs_of_a_sweep_are_one_run(uri):
    jobs = [job(uri, f"seed={s}", model=LOGREG, seed=s) for s in (0, 1, 0)]
    results = carried_out(jobs, ["seed=0,1,0"], launcher=LauncherConfig(n_jobs=1))
    assert [result.name for result in results] == ["seed=0", "seed=1", "seed=0"]
    assert results[0].metrics == results[2].metrics
    assert set(recorded(uri)) == {"seed, 2 runs", "seed=0", "seed=1"}


def test_a_sweep_of_one_run_is_a_sweep(uri):
    carried_out([job(uri, "seed=0", model=LOGREG)], ["seed=0"], launcher=LauncherConfig(n_jobs=1))
    assert sorted(recorded(uri)) == ["logreg", "logreg, 1 run"]


def test_one_config_in_two_experiments_is_two_runs(uri):
    jobs = [job(uri, f"tracking.experiment={name}", model=LOGREG) for name in ("digits", "other")]
    tracking = jobs[1].config.tracking.model_copy(update={"experiment": "other"})
    jobs[1] = RunRequest(jobs[1].config.model_copy(update={"tracking": tracking}), jobs[1].overrides)
    for stored in (False, True):
        assert (
            statuses(carried_out(jobs, ["..."], launcher=LauncherConfig(n_jobs=1)))
            == [("FINISHED", stored)] * 2
        )
    assert sorted(recorded(uri)) == ["digits", "experiment, 2 runs"]
    client = mlflow.MlflowClient(uri)
    [run] = client.search_runs([client.get_experiment_by_name("other").experiment_id])
    assert run.info.run_name == "other"


def test_a_larger_sweep_takes_up_what_a_smaller_one_left(uri, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    jobs = [job(uri, f"seed={s}", model=MLP, seed=s, epochs=20, checkpoint_seconds=0.0) for s in range(3)]
    with monkeypatch.context() as interrupted:
        interrupted.setattr(artifacts, "write_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            carried_out(jobs[:2], ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert (
        statuses(carried_out(jobs, ["seed=0,1,2"], launcher=LauncherConfig(n_jobs=1)))
        == [("FINISHED", False)] * 3
    )
    states = recorded(uri)
    assert states.pop("seed, 2 runs") == ("KILLED", None)
    assert set(states.values()) == {("FINISHED", None)}
    assert (
        statuses(carried_out(jobs[:2], ["seed=0,1"], launcher=LauncherConfig(n_jobs=1)))
        == [("FINISHED", True)] * 2
    )
    assert set(recorded(uri).values()) == {("FINISHED", None)}
    assert [path.name for path in unfinished().iterdir()] == ["claims"]


def test_a_run_that_diverged_is_not_trained_again_and_one_that_broke_is(uri, monkeypatch):
    jobs = [
        job(uri, "lr=1e20", model=MLP, optim=sgd(1e20)),
        job(uri, "lr=0.1", model=LOGREG, optim=sgd(0.1)),
    ]
    with monkeypatch.context() as broken:
        broken.setattr(artifacts, "write_run", lambda *_: 1 / 0)
        results = carried_out(jobs, ["optim.lr=..."], launcher=LauncherConfig(n_jobs=1))
    assert statuses(results) == [("FAILED", False)] * 2
    assert "ZeroDivisionError" in results[1].reason
    results = carried_out(jobs, ["optim.lr=..."], launcher=LauncherConfig(n_jobs=1))
    assert statuses(results) == [("FAILED", False), ("FINISHED", False)]  # neither had been written
    results = carried_out(jobs, ["optim.lr=..."], launcher=LauncherConfig(n_jobs=1))
    assert statuses(results) == [("FAILED", True), ("FINISHED", True)]
    assert results[0].reason.startswith("diverged: ")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_interrupted_sweep_goes_on_where_it_was(uri, tmp_path, monkeypatch, n_jobs):
    jobs = [
        job(uri, f"seed={s}", model=MLP, seed=s, epochs=e, checkpoint_seconds=0.0)
        for s, e in enumerate((1, 40, 40))
    ]
    with monkeypatch.context() as interrupted:
        receive = Ledger.receive

        def once(ledger, number, event):
            receive(ledger, number, event)
            if ledger._entries[1].history.epochs == 20:
                raise KeyboardInterrupt

        interrupted.setattr(Ledger, "receive", once)
        with pytest.raises(KeyboardInterrupt):
            carried_out(jobs, ["seed=0,1,2"], launcher=LauncherConfig(n_jobs=n_jobs))
    before = {name: status for name, (status, _) in recorded(uri).items()}
    assert before.pop("seed=2") in ("KILLED", "FINISHED")  # with two workers it may be quick
    assert before == {"seed, 3 runs": "KILLED", "seed=0": "FINISHED", "seed=1": "KILLED"}
    results = carried_out(jobs, ["seed=0,1,2"], launcher=LauncherConfig(n_jobs=n_jobs))
    assert statuses(results)[:2] == [("FINISHED", True), ("FINISHED", False)]
    undisturbed = f"sqlite:///{tmp_path}/undisturbed.db"
    elsewhere = [
        RunRequest(j.config.model_copy(update={"tracking": job(undisturbed).config.tracking}), j.overrides)
        for j in jobs
    ]
    carried_out(elsewhere, ["seed=0,1,2"], launcher=LauncherConfig(n_jobs=1))
    assert contents(uri, "digits") == contents(undisturbed, "digits")
    assert [path.name for path in (tmp_path / "outputs" / "unfinished").iterdir()] == ["claims"]


def test_a_users_name_tags_and_note_are_recorded_also_with_a_sweep_that_is_repeated(uri, tmp_path):
    def sweep(**said):
        jobs = [quiet_job(uri, seed, **said) for seed in (0, 1)]
        carried_out(jobs, ["seed=0,1"], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
        runs = {run.info.run_name: run for run in mlflow.MlflowClient(uri).search_runs(["1"])}
        return {name: [run.data.tags.get("team"), *notes_of(run)] for name, run in runs.items()}

    first = sweep(name="mine", tags={"team": "a"}, note="Why.")
    best, *of_runs = (first[name][2] for name in ("mine", "seed=0", "seed=1"))
    assert best.startswith("2 runs on digits. Test accuracy")
    assert of_runs[1].startswith("logreg 64-10; sgd")
    trained = {f"seed={s}": ["a", "Why.", of_runs[s]] for s in (0, 1)}
    assert first == {"mine": ["a", "Why.", best], **trained}
    assert sweep() == first
    assert sweep(name="renamed", note="Because.") == {"renamed": ["a", "Because.", best], **trained}


def test_a_name_is_a_single_runs_own(uri):
    carried_out([quiet_job(uri, 0, name="mine")], sweep=None)
    assert list(recorded(uri)) == ["mine"]


def quiet_job(uri, seed, **said):
    request = job(uri, f"seed={seed}", model=LOGREG, seed=seed)
    tracking = request.config.tracking.model_copy(update={"pictures": "none", **said})
    return RunRequest(request.config.model_copy(update={"tracking": tracking}), request.overrides)


def notes_of(run):
    return run.data.tags["mlflow.note.content"].split("\n\n")
