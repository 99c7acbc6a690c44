"""Whether a failure stops the runs that have not started."""

import pytest
from helpers.configs import LOGREG, MLP, job, sgd, with_pictures
from helpers.records import carried_out, recorded, statuses

from lockstep.config.launcher_config import LauncherConfig
from lockstep.recovery.run_folder import folders, unfinished
from lockstep.results.run_result import RunFailed
from lockstep.training import artifacts


@pytest.fixture
def breaks(monkeypatch):
    """The results of seed 1 can't be written, until it is undone."""
    write_run = artifacts.write_run

    def write(run, folder):
        if run.config.seed == 1:
            raise ValueError("seed 1")
        write_run(run, folder)

    monkeypatch.setattr(artifacts, "write_run", write)
    return monkeypatch


def seeds(uri, n):
    jobs = (job(uri, f"seed={seed}", model=LOGREG, seed=seed) for seed in range(n))
    return [with_pictures(job, "none") for job in jobs]


def test_fail_fast_starts_no_run_after_a_failure_and_the_sweep_can_go_on(uri, breaks, tmp_path):
    sweep = ["seed=0,1,2,3"]
    with pytest.raises(RunFailed) as stopped:
        carried_out(seeds(uri, 4), sweep, LauncherConfig(n_jobs=1, fail_fast=True), at_once=1)
    assert str(stopped.value) == (
        "seed=1: ValueError: seed 1\n"
        "After that, no more runs were started (hydra.launcher.fail_fast=true); the same command without"
        " it trains the others"
    )
    assert recorded(uri) == {
        "seed, 4 runs": ("FAILED", None),
        "seed=0": ("FINISHED", None),
        "seed=1": ("FAILED", "ValueError: seed 1"),
    }
    breaks.undo()
    breaks.setenv("LOCKSTEP_ROOT", str(tmp_path))
    runs = carried_out(seeds(uri, 4), sweep, LauncherConfig(n_jobs=1))
    assert statuses(runs) == [("FINISHED", True), *[("FINISHED", False)] * 3]
    assert recorded(uri)["seed, 4 runs"] == ("FINISHED", None)
    assert list(folders(unfinished())) == []


def test_runs_of_the_failed_ones_array_end_and_are_left_only_where_they_had_not_started(uri, breaks):
    with pytest.raises(RunFailed):
        carried_out(
            seeds(uri, 3), ["seed=0,1,2"], at_once=2, launcher=LauncherConfig(n_jobs=1, fail_fast=True)
        )
    assert recorded(uri).keys() == {"seed, 3 runs", "seed=0", "seed=1"}
    runs = carried_out(
        seeds(uri, 2), ["seed=0,1"], launcher=LauncherConfig(n_jobs=1, fail_fast=True)
    )  # nothing is left to start
    assert statuses(runs) == [("FINISHED", True), ("FAILED", False)]


def test_arrays_that_could_start_at_once_but_have_not_are_left_too(uri, breaks):
    sizes = ((0, 64), (1, 16))  # seed 1 takes longer, and is first
    jobs = [job(uri, f"seed={seed}", model=LOGREG, seed=seed, batch_size=size) for seed, size in sizes]
    with pytest.raises(RunFailed):
        carried_out(
            [with_pictures(of_seed, "none") for of_seed in jobs],
            ["seed=0,1"],
            launcher=LauncherConfig(n_jobs=1, fail_fast=True),
        )
    assert recorded(uri).keys() == {"seed, 2 runs", "seed=1"}


def test_a_run_that_failed_in_an_earlier_command_stops_nothing(uri):
    diverges = with_pictures(job(uri, "lr=1e20", model=MLP, optim=sgd(1e20)), "none")
    assert statuses(carried_out([diverges], ["lr=1e20"], launcher=LauncherConfig(n_jobs=1))) == [
        ("FAILED", False)
    ]
    runs = carried_out(
        [diverges, *seeds(uri, 2)],
        ["lr=1e20", "seed=0,1"],
        at_once=1,
        launcher=LauncherConfig(n_jobs=1, fail_fast=True),
    )
    assert statuses(runs) == [("FAILED", True), ("FINISHED", False), ("FINISHED", False)]
