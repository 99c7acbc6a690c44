"""Which runs a command resumes in a store that several outputs folders share, as those of two machines."""

import mlflow
import pytest
from helpers.configs import LOGREG, job, with_pictures
from helpers.records import carried_out, statuses

from lockstep.config.launcher_config import LauncherConfig
from lockstep.recovery.run_folder import unfinished
from lockstep.training import artifacts


@pytest.fixture
def machine(uri, tmp_path, monkeypatch):
    """Switch to a machine: the one with this outputs folder."""
    return lambda name: monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path / name))


def sweep(uri, folder):
    jobs = [with_pictures(job(uri, f"seed={s}", model=LOGREG, seed=s, epochs=2), "none") for s in (0, 1)]
    return carried_out(jobs, ["seed=0,1"], launcher=LauncherConfig(n_jobs=1), folder=folder)


def interrupted(uri, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "write_run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep(uri, tmp_path)


def runs(uri, kind):
    """The runs of a kind in a store, the first one first."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits").experiment_id
    return client.search_runs([experiment], f"tags.`lockstep.kind` = '{kind}'", order_by=["start_time"])


def test_each_machine_records_a_sweep_under_a_parent_run_of_its_own(uri, tmp_path, machine):
    machine("here")
    sweep(uri, tmp_path)
    [before] = runs(uri, "sweep")
    machine("there")
    for _ in range(2):
        trained = sweep(uri, tmp_path)
        assert statuses(trained) == [("FINISHED", True)] * 2
        first, second = runs(uri, "sweep")
        assert first.to_dictionary() == before.to_dictionary()
        assert second.data.tags["lockstep.winner"] == before.data.tags["lockstep.winner"]
    # Earlier versions took any for theirs.
    mlflow.MlflowClient(uri).delete_tag(second.info.run_id, "lockstep.outputs")
    machine("elsewhere")
    sweep(uri, tmp_path)
    assert len(runs(uri, "sweep")) == 2


def test_a_machine_whose_run_folder_is_damaged_resumes_its_own_run(uri, tmp_path, machine, monkeypatch):
    for name in ("here", "there"):
        machine(name)
        interrupted(uri, tmp_path, monkeypatch)
    before = {run.info.run_id: run.to_dictionary() for run in runs(uri, "run")}
    assert len(before) == 4
    machine("here")
    for folder in unfinished().glob("*/journal"):
        (folder.parent / "run.json").write_text("damaged")
    sweep(uri, tmp_path)
    changed = [run for run in runs(uri, "run") if run.to_dictionary() != before[run.info.run_id]]
    assert [run.info.status for run in changed] == ["FINISHED"] * 2
    parent, _ = runs(uri, "sweep")
    assert {run.data.tags["mlflow.parentRunId"] for run in changed} == {parent.info.run_id}
