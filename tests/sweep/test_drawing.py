"""Pictures of the winner alone."""

import mlflow
import pytest
import requests
from helpers.configs import LOGREG, job, with_pictures
from helpers.records import carried_out, recorded

from lockstep.config.launcher_config import LauncherConfig
from lockstep.pictures import run_pictures
from lockstep.recovery.temporary import PREFIX
from lockstep.tracking import patience
from lockstep.tracking.run import Recorded


def test_a_winners_pictures_that_cannot_be_drawn_cost_no_run(uri, monkeypatch, caplog):
    def broken(*_):
        raise OSError("no font")

    monkeypatch.setattr(run_pictures, "drawings", broken)
    jobs = [with_pictures(job(uri, f"seed={s}", model=LOGREG, seed=s), "best") for s in range(2)]
    assert [
        run.status for run in carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    ] == ["FINISHED"] * 2
    assert set(recorded(uri).values()) == {("FINISHED", None)}
    assert "seed=0: no pictures: OSError: no font" in caplog.text


def test_a_kill_while_a_winners_pictures_are_uploaded_costs_none_of_them(uri, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    jobs = [with_pictures(job(uri, f"seed={s}", model=LOGREG, seed=s), "best") for s in range(2)]
    upload = Recorded.artifacts

    def killed(recorded, folder, *arguments):
        if PREFIX not in folder.name:  # of a run, not its pictures
            return upload(recorded, folder, *arguments)
        for path in sorted(folder.iterdir())[1:]:
            path.rename(tmp_path / path.name)
        upload(recorded, folder, *arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "artifacts", killed)
        with pytest.raises(Killed):
            carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    runs = carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    client = mlflow.MlflowClient(uri)
    drawn = [{file.path for file in client.list_artifacts(run.run_id)} for run in runs]
    assert drawn[0] - drawn[1] == {"confusion.png", "curves", "mistakes.png", "pca", "samples.png"}


@pytest.mark.parametrize("times", [1, 10**9])
def test_a_store_that_is_away_for_a_while_or_for_good_costs_no_pictures(uri, monkeypatch, times):
    jobs = [with_pictures(job(uri, f"seed={s}", model=LOGREG, seed=s), "best") for s in range(2)]
    upload, failed = Recorded.artifacts, []

    def away(recorded, folder, *arguments):
        if folder.name.startswith(PREFIX) and len(failed) < times:
            failed.append(folder)
            raise requests.ConnectionError("nobody is there")
        upload(recorded, folder, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Recorded, "artifacts", away)
        patch.setattr(patience, "RETRY_SECONDS", 0.01)
        patch.setattr(patience, "PATIENCE_SECONDS", 0.1)
        if times == 1:
            runs = carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
        else:
            with pytest.raises(requests.ConnectionError):
                carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    if times > 1:
        runs = carried_out(jobs, sweep=["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert set(recorded(uri).values()) == {("FINISHED", None)}
    files = {file.path for file in mlflow.MlflowClient(uri).list_artifacts(runs[0].run_id)}
    assert files >= {"confusion.png", "curves", "mistakes.png", "pca", "samples.png"}
    assert failed
