"""Pictures of the winner alone."""

from helpers.configs import LOGREG, job, with_pictures
from helpers.records import carried_out, recorded

from lockstep.pictures import run_pictures


def test_a_winners_pictures_that_cannot_be_drawn_cost_no_run(uri, monkeypatch, caplog):
    def broken(*_):
        raise OSError("no font")

    monkeypatch.setattr(run_pictures, "drawings", broken)
    jobs = [with_pictures(job(uri, f"seed={s}", model=LOGREG, seed=s), "best") for s in range(2)]
    assert [run.status for run in carried_out(jobs, sweep=["seed=0,1"], n_jobs=1)] == ["FINISHED"] * 2
    assert set(recorded(uri).values()) == {("FINISHED", None)}
    assert "seed=0: no pictures: OSError: no font" in caplog.text
