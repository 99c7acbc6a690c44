"""Which runs belong to a sweep and which wins: every reader says the same, whoever trained them."""

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from helpers.configs import LOGREG, MLP, job, sgd, with_pictures
from helpers.records import carried_out

from lockstep.config.launcher_config import LauncherConfig
from lockstep.recovery.run_folder import unfinished
from lockstep.sweep import session
from lockstep.sweep.session import NotUploaded, carry_out
from lockstep.tracking import sweeps
from lockstep.tracking.run import Recorded
from lockstep.tracking.store import Store
from lockstep.training import artifacts


def requests(uri, *lrs, seeds=(0,), **settings):
    return [
        job(uri, f"optim.lr={lr}", f"seed={seed}", model=LOGREG, optim=sgd(lr), seed=seed, **settings)
        for lr in lrs
        for seed in seeds
    ]


def elsewhere(request, experiment):
    tracking = request.config.tracking.model_copy(update={"experiment": experiment})
    return replace(request, config=request.config.model_copy(update={"tracking": tracking}))


def parents(uri):
    """The parent runs in a store, the latest first."""
    client = mlflow.MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(experiments, "tags.`lockstep.kind` = 'sweep'", order_by=["start_time DESC"])


def read(uri, parent):
    return sweeps.read(Store(uri), parent.info.run_id)


def found_by_link(uri, sweep):
    """The runs that the search of a sweep's link finds."""
    found = Store(uri).search(sweep.experiment_ids, sweep.search)
    return sorted(run.info.run_id for run in found)


def test_all_readers_agree_on_a_grid_with_repeats(uri, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(session.console, "_file", None)
    asked = [with_pictures(r, "best") for r in requests(uri, 0.5, 0.001, seeds=(3, 2), val_size=300)]
    standings = carry_out(asked, ["..."], folder=tmp_path / "sweep", launcher=LauncherConfig(n_jobs=1))
    printed = capsys.readouterr().out
    [parent] = parents(uri)
    tags, client = parent.data.tags, mlflow.MlflowClient(uri)
    best = standings.winner
    assert [run.params["seed"] for run in best.runs] == ["3", "2"]
    assert {run.params["optim.lr"] for run in best.runs} == {"0.5"}
    # The parent's tags, the report and its link.
    assert tags["lockstep.winner_runs"].split(",") == [run.run_id for run in best.runs]
    assert tags["lockstep.winner"] == best.representative.run_id
    assert best.representative.params["seed"] == "2"
    sweep = read(uri, parent)
    assert [run.run_id for run in sweep.runs] == [run.run_id for run in standings.runs]
    assert sweep.winner.representative.run_id == tags["lockstep.winner"]
    assert found_by_link(uri, sweep) == sorted(run.run_id for run in standings.runs)
    assert parent.data.metrics["best/val/accuracy"] == pytest.approx(best.mean("val/accuracy"))
    # The table, the model and the pictures.
    rows = [line for line in printed.splitlines() if line.startswith("lr=")]
    assert [line.split()[0] for line in rows] == ["lr=0.5", "lr=0.001"]
    with_model = [run.run_id for run in standings.runs if client.get_run(run.run_id).outputs.model_outputs]
    drawn = [run.run_id for run in standings.runs if client.list_artifacts(run.run_id, "curves")]
    assert with_model == drawn == [tags["lockstep.winner"]]
    report = (tmp_path / "sweep" / "report.html").read_text()
    assert best.representative.run_id in report.partition('class="best"')[2].partition("</tr>")[0]


def test_a_failed_run_is_a_member_and_does_not_win(uri, tmp_path):
    diverging = job(uri, "optim.lr=1e20", model=MLP, optim=sgd(1e20))
    standings = carry_out(
        [diverging, *requests(uri, 0.1)], ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1)
    )
    [parent] = parents(uri)
    sweep = read(uri, parent)
    assert [run.status for run in sweep.runs] == ["FAILED", "FINISHED"]
    assert parent.data.tags["lockstep.winner"] == standings.runs[1].run_id


def test_an_extended_sweep_has_all_its_runs_and_the_earlier_one_keeps_its_own(uri, tmp_path):
    carry_out(requests(uri, 0.1, 0.5), ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    carry_out(requests(uri, 0.001, 0.1, 0.5), ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    latest, earlier = (read(uri, parent) for parent in parents(uri))
    assert [run.params["optim.lr"] for run in latest.runs] == ["0.001", "0.1", "0.5"]
    assert latest.summary["runs"] == 3
    assert found_by_link(uri, latest) == sorted(run.run_id for run in latest.runs)
    assert [run.run_id for run in earlier.runs] == [run.run_id for run in latest.runs[1:]]
    assert latest.winner.representative.run_id == earlier.winner.representative.run_id


def interrupted(monkeypatch, asked):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "write_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            carry_out(asked, ["..."], launcher=LauncherConfig(n_jobs=1))


def test_a_sweep_whose_values_come_in_another_order_is_the_same_sweep(uri, tmp_path, monkeypatch):
    asked = requests(uri, 0.1, 0.5, 0.01, 0.05)
    interrupted(monkeypatch, asked)
    assert [parent.info.status for parent in parents(uri)] == ["KILLED"]
    carry_out(asked[::-1], ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    [parent] = parents(uri)
    assert parent.info.status == "FINISHED"
    sweep = read(uri, parent)
    assert [run.params["optim.lr"] for run in sweep.runs] == ["0.05", "0.01", "0.5", "0.1"]
    assert sweep.summary["runs"] == 4
    assert [path.name for path in unfinished().iterdir()] == ["claims"]


def test_a_sweep_over_two_experiments_has_the_runs_of_both(uri, tmp_path):
    first, second = requests(uri, 0.1, 0.5)
    asked = [first, elsewhere(second, "other")]
    for _ in range(2):
        standings = carry_out(asked, ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    [parent] = parents(uri)
    sweep = read(uri, parent)
    assert [run.params["tracking.experiment"] for run in sweep.runs] == ["digits", "other"]
    assert len(sweep.experiment_ids) == 2
    assert found_by_link(uri, sweep) == sorted(run.run_id for run in standings.runs)
    assert "/compare-experiments/" in sweep.link(Store(uri))


def test_a_deleted_parent_comes_back_with_all_members_stored(uri, tmp_path):
    asked = requests(uri, 0.1, 0.5)
    carry_out(asked, ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    [deleted] = parents(uri)
    mlflow.MlflowClient(uri).delete_run(deleted.info.run_id)
    again = carried_out(asked, ["..."], folder=tmp_path / "again", launcher=LauncherConfig(n_jobs=1))
    assert [run.is_stored for run in again] == [True, True]
    [parent] = parents(uri)
    assert parent.info.run_id != deleted.info.run_id
    assert [run.run_id for run in read(uri, parent).runs] == [run.run_id for run in again]
    assert (tmp_path / "again" / "report.html").exists()


def test_a_sweep_that_is_complete_keeps_its_parent_and_its_times(uri, tmp_path):
    asked = requests(uri, 0.1, 0.5)
    carry_out(asked, ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    [before] = parents(uri)
    carry_out(asked, ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    [after] = parents(uri)
    assert (before.info.run_id, before.info.end_time) == (after.info.run_id, after.info.end_time)
    assert read(uri, after).summary["runs"] == 2


def test_the_same_run_twice_is_one_member(uri, tmp_path):
    asked = requests(uri, 0.1, 0.1, 0.5)
    carry_out(asked, ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    [parent] = parents(uri)
    assert len(read(uri, parent).runs) == 2


def test_runs_that_train_a_few_at_a_time_are_one_sweep(uri, tmp_path):
    carry_out(
        requests(uri, 0.1, 0.5, 0.01, 0.05),
        ["..."],
        folder=tmp_path,
        at_once=2,
        launcher=LauncherConfig(n_jobs=1),
    )
    [parent] = parents(uri)
    assert len(read(uri, parent).runs) == 4


def test_a_sweep_recorded_by_version_0_1_0_is_read_as_it_was_meant(uri, tmp_path):
    carry_out(requests(uri, 0.1, 0.5), ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    [parent] = parents(uri)
    client, new = mlflow.MlflowClient(uri), read(uri, parent)
    (Path(parent.info.artifact_uri.removeprefix("file://")) / sweeps.MEMBERS).unlink()
    for tag in (sweeps.WINNER, sweeps.WINNER_RUNS, sweeps.RANKING):
        client.delete_tag(parent.info.run_id, tag)
    old = read(uri, parent)
    assert {run.run_id for run in old.runs} == {run.run_id for run in new.runs}
    assert old.winner.representative.run_id == new.winner.representative.run_id


def test_the_members_are_a_list_of_run_ids(uri, tmp_path):
    standings = carry_out(
        requests(uri, 0.1, 0.5), ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1)
    )
    [parent] = parents(uri)
    path = Path(parent.info.artifact_uri.removeprefix("file://")) / "members.json"
    listed = json.loads(path.read_text())
    assert listed == {
        "experiments": [parent.info.experiment_id],
        "runs": [run.run_id for run in standings.runs],
        "names": ["lr=0.1", "lr=0.5"],
        "scales": {},  # a grid's lists have none
    }


def test_a_sweep_whose_winner_cannot_be_recorded_says_so_and_the_same_command_records_it(
    uri, tmp_path, monkeypatch
):
    asked = requests(uri, 0.1, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "artifact", lambda *_: 1 / 0)
        with pytest.raises(NotUploaded, match=r"which won: division by zero\nGive the same command"):
            carry_out(asked, ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    [parent] = parents(uri)
    assert sweeps.WINNER not in parent.data.tags
    again = carried_out(asked, ["..."], folder=tmp_path, launcher=LauncherConfig(n_jobs=1))
    assert [run.is_stored for run in again] == [True, True]
    [parent] = parents(uri)
    assert parent.data.tags[sweeps.WINNER] in {run.run_id for run in again}
