"""Sweeps that an earlier version of the numerics has begun: finished runs count, others are trained anew."""

import mlflow
import pytest
from helpers.configs import LOGREG, job, quiet
from helpers.numerics import BEFORE, TODAY, set_version
from helpers.records import carried_out, recorded, statuses

from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.run_request import RunRequest
from lockstep.recovery.journal import Ended
from lockstep.recovery.run_folder import folders, unfinished
from lockstep.sweep.ledger import Ledger
from lockstep.tracking import sweeps
from lockstep.tracking.pending import listed
from lockstep.tracking.store import Store

NUMERICS = "lockstep.numerics_version"


def jobs_of(uri, seeds, epochs=4):
    jobs = [job(uri, f"seed={s}", model=LOGREG, seed=s, epochs=epochs, checkpoint_seconds=0.0) for s in seeds]
    return [RunRequest(quiet(of.config), of.overrides) for of in jobs]


@pytest.fixture
def before(monkeypatch):
    """Lets an earlier version of the numerics train in the block."""

    class Before:
        def __enter__(self):
            self.patch = pytest.MonkeyPatch()
            set_version(self.patch, BEFORE)
            return self.patch

        def __exit__(self, *_):
            self.patch.undo()

    return Before


def kill_once_a_run_has_ended(patch):
    """Its end is in its journal; the store is not told, nor that the sweep ends."""
    receive = Ledger.receive

    def once(ledger, number, event):
        if isinstance(event, Ended):
            raise KeyboardInterrupt
        receive(ledger, number, event)

    patch.setattr(Ledger, "receive", once)
    patch.setattr(Ledger, "close", lambda *_: None)


def runs_of(uri):
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs(["1"], "tags.lockstep.kind = 'run'", order_by=["attributes.start_time ASC"])
    return [(run.info.run_name, run.info.status, run.data.tags[NUMERICS]) for run in runs]


def left():
    return sorted(path.name for path in unfinished().iterdir())


def test_a_sweep_half_of_an_earlier_version_trains_the_other_half(uri, tmp_path, before, capsys):
    with before():
        carried_out(jobs_of(uri, (0, 1)), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    capsys.readouterr()
    results = carried_out(jobs_of(uri, range(4)), ["seed=0,1,2,3"], launcher=LauncherConfig(n_jobs=1))
    assert statuses(results) == [("FINISHED", True)] * 2 + [("FINISHED", False)] * 2
    assert [result.numerics_version for result in results] == [BEFORE] * 2 + [TODAY] * 2
    assert sorted(version for *_, version in runs_of(uri)) == [str(BEFORE)] * 2 + [str(TODAY)] * 2
    line = "2 runs are of numerics version 2, which an earlier Lockstep had: trained now, the last digits may"
    assert f"{line} differ (seed=0, seed=1).\n" in capsys.readouterr().out
    # All four are repeats, whose mean ranks them.
    again = carried_out(
        jobs_of(uri, range(4)), ["seed=0,1,2,3"], folder=tmp_path / "sweep", launcher=LauncherConfig(n_jobs=1)
    )
    assert statuses(again) == [("FINISHED", True)] * 4
    [parent] = [
        run.info.run_id
        for run in mlflow.MlflowClient(uri).search_runs(["1"], "tags.lockstep.kind = 'sweep'")
        if "4 runs" in run.info.run_name
    ]
    sweep = sweeps.read(Store(uri), parent)
    assert [run.numerics_version for run in sweep.runs] == [BEFORE] * 2 + [TODAY] * 2
    assert len(sweep.winner.runs) == 4


def test_the_same_sweep_continues_the_parent_of_an_earlier_version(uri, before):
    with before():
        carried_out(jobs_of(uri, (0, 1)), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert (
        statuses(carried_out(jobs_of(uri, (0, 1)), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1)))
        == [("FINISHED", True)] * 2
    )
    assert len(mlflow.MlflowClient(uri).search_runs(["1"])) == 3


@pytest.mark.parametrize("left_by", ["a kill", "a kill and another command", "a kill, description lost"])
def test_interrupted_runs_are_trained_anew_and_ended_ones_kept(uri, before, left_by):
    jobs = jobs_of(uri, (0, 1), epochs=20)
    jobs[0] = jobs_of(uri, (0,), epochs=2)[0]
    with before() as patch, pytest.raises(KeyboardInterrupt):
        kill_once_a_run_has_ended(patch)
        carried_out(jobs, ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    [interrupted] = [of for of in folders(unfinished()) if of.checkpoints() and not of.history()[1]]
    says_so = "epochs; of an earlier numerics version: the same command trains it anew"
    assert says_so in "\n".join(listed(unfinished()))
    if left_by == "a kill and another command":
        carried_out(jobs_of(uri, (7,), epochs=1), ["seed=7"], launcher=LauncherConfig(n_jobs=1))
        assert recorded(uri)["seed=1"] == ("KILLED", None)
        assert interrupted.exists()
    elif left_by == "a kill, description lost":
        (interrupted.path / "run.json").write_text("{")
    results = carried_out(jobs, ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert [(result.status, result.numerics_version) for result in results] == [
        ("FINISHED", BEFORE),
        ("FINISHED", TODAY),
    ]
    assert [run for run in runs_of(uri) if run[0] != "logreg"] == [
        ("seed=0", "FINISHED", str(BEFORE)),
        ("seed=1", "KILLED", str(BEFORE)),
        ("seed=1", "FINISHED", str(TODAY)),
    ]
    assert set(left()) <= {"claims", "damaged"}
