"""Commands as real processes: what they print, write and record, and how they end."""

import gc
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import hydra
import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import torch
from helpers.clone import REPOSITORY
from helpers.processes import alive, until, workers_of
from mlflow.exceptions import MlflowException
from omegaconf import OmegaConf
from sqlalchemy.exc import OperationalError

from lockstep.cli import command, failures
from lockstep.config._hydra_compat import VERSION_BASE, arguments_parser
from lockstep.config.launcher_config import LauncherConfig
from lockstep.recovery.run_folder import unfinished
from lockstep.sweep import checks

ARTIFACTS = {
    "config.yaml",
    "history.parquet",
    "predictions.parquet",
    "samples.png",
    "confusion.png",
    "mistakes.png",
    "curves/loss.png",
    "curves/accuracy.png",
    "pca/input.png",
    "pca/hidden1.png",
    "pca/hidden2.png",
    "pca/explained_variance.json",
    "model/state_dict.pt",
}


def runs_of(uri, experiment):
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    kinds = {"sweep": [], "run": []}
    for run in runs:
        kinds[run.data.tags["lockstep.kind"]].append(run)
    return client, kinds["sweep"], sorted(kinds["run"], key=lambda run: run.info.run_name)


HEAVY = {"torch", "torchvision", "matplotlib", "sklearn", "optuna", "dask", "distributed"}
"""What only workers, searches and commands with a cluster load."""


def artifacts_of(run):
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return folder, {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_sweep_is_recorded_as_the_contracts_say(clone, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    sweep = ("-m", "data=digits", "trainer.epochs=3", "trainer.log_every=10")
    sweep += ("model.hidden_dim1=16,32", "optim.lr=1e-1,1e-3")
    code, out, imported = clone.run_watched(*sweep, cwd=elsewhere)
    assert code == 0
    assert not imported & HEAVY
    assert {"mlflow", "plotly"} <= imported
    assert list(elsewhere.iterdir()) == []

    client, [parent], runs = runs_of(clone.store, "digits")
    assert parent.info.run_name == "hidden_dim1 x lr, 4 runs"
    names = [f"{width} lr={lr}" for width in (16, 32) for lr in (0.001, 0.1)]
    assert [run.info.run_name for run in runs] == names
    assert [run.info.status for run in [parent, *runs]] == ["FINISHED"] * 5
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent.info.run_id}
    assert parent.data.tags["lockstep.overrides"] == (
        "data=digits trainer.epochs=3 trainer.log_every=10 model.hidden_dim1=16,32 optim.lr=1e-1,1e-3"
    )
    assert len({run.data.tags["lockstep.run_key"] for run in runs}) == 4

    run = runs[1]  # 16 lr=0.1
    assert run.data.tags["lockstep.overrides"] == (
        "data=digits trainer.epochs=3 trainer.log_every=10 model.hidden_dim1=16 optim.lr=0.1"
    )
    assert run.data.tags["lockstep.version"] == version("lockstep")
    params = run.data.params
    assert params["model"] == "mlp"
    assert params["model.hidden_dim1"] == "16"
    assert params["model.hidden_dims"] == "[16, 100]"
    assert params["optim.lr"] == "0.1"
    assert params["optim.nesterov"] == "false"
    assert not any(key.startswith("tracking.uri") for key in params)
    [logged] = run.inputs.dataset_inputs
    assert logged.dataset.name == "digits"
    assert len(logged.dataset.digest) == 32

    folder, artifacts = artifacts_of(run)
    assert folder.is_relative_to(clone.root / "outputs" / "artifacts")
    assert artifacts == ARTIFACTS
    # 1,437 training digits in minibatches of 64: 22 iterations an epoch, 66 in all.
    history = pd.read_parquet(folder / "history.parquet")
    train, test = history[history.split == "train"], history[history.split == "test"]
    assert train.iteration.tolist() == list(range(1, 67))
    assert test.iteration.tolist() == [22, 44, 66]
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in points] == [10, 20, 30, 40, 50, 60, 66]
    windows = [train.loss[start : start + 10].mean() for start in range(0, 66, 10)]
    assert [point.value for point in points] == pytest.approx(windows, rel=1e-12)
    points = client.get_metric_history(run.info.run_id, "test/accuracy")
    assert [(point.step, point.value) for point in points] == list(
        zip(test.iteration, test.accuracy, strict=True)
    )
    assert run.data.metrics["test/accuracy_best"] == test.accuracy.max()
    assert run.data.metrics["time/train_seconds"] > 0
    state = torch.load(folder / "model" / "state_dict.pt", weights_only=True)
    assert state["hidden.0.weight"].shape == (16, 64)
    config = OmegaConf.load(folder / "config.yaml")
    assert (config.optim.lr, config.model.hidden_dim1) == (0.1, 16)
    explained = json.loads((folder / "pca" / "explained_variance.json").read_text())
    assert list(explained) == ["input", "hidden1", "hidden2"]
    assert all(1 > first >= second > 0 for first, second in explained.values())

    # Hydra's folders, one a job.
    [sweep_dir] = (clone.root / "outputs" / "sweeps").glob("*/*")
    assert (sweep_dir / "multirun.yaml").is_file()
    for index, width, lr in ((0, 16, 0.1), (1, 16, 0.001), (2, 32, 0.1), (3, 32, 0.001)):
        job = OmegaConf.load(sweep_dir / str(index) / ".hydra" / "config.yaml")
        assert (job.model.hidden_dim1, job.optim.lr) == (width, lr)

    # What is printed: a line for each epoch of each of two arrays, the table, best first, the way to the UI.
    lines = out.splitlines()
    assert sum("epoch 3/3" in line for line in lines) == 2
    start = next(i for i, line in enumerate(lines) if line.startswith("run "))
    table = [line.split() for line in lines[start + 1 : start + 5]]
    accuracies = [float(cells[2]) for cells in table]
    assert accuracies == sorted(accuracies, reverse=True)
    [cells] = [cells for cells in table if cells[:2] == ["16", "lr=0.1"]]
    assert cells[2] == f"{test.accuracy.iloc[-1]:.4f}"
    assert lines[-1].startswith("Compare the runs in MLflow: make -C")

    # Once more, all stored, and without training.
    code, out, imported = clone.run_watched(*sweep)
    assert (code, out.count(" stored ")) == (0, 4)
    assert not imported & {*HEAVY, "plotly"}
    reports = [path.read_bytes() for path in (clone.root / "outputs" / "sweeps").rglob("report.html")]
    assert len(reports) == 2 and len(set(reports)) == 1
    code, out, imported = clone.run_watched(*sweep, "rerun=true", "dry_run=true")
    assert (code, "4 runs in 2 arrays" in out) == (0, True)
    assert not imported & {*HEAVY, "plotly"}


def test_a_run_alone_gives_the_numbers_it_has_in_a_sweep(clone):
    common = ("data=digits", "trainer.epochs=2", "optim.lr=0.1", "tracking.pictures=none")
    assert clone.quick(*common, "seed=1")[0] == 0
    assert clone.quick("-m", *common, "seed=0,1", "hydra/launcher=basic")[0] == 0
    assert clone.quick("-m", *common, "seed=0,1", "rerun=true", "hydra.launcher.n_jobs=1")[0] == 0
    _, parents, runs = runs_of(clone.store, "digits")
    assert len(parents) == 1  # stock launchers know no sweep: their runs stand alone
    tables = [
        pd.read_parquet(artifacts_of(run)[0] / "history.parquet")
        for run in runs
        if run.data.params["seed"] == "1"
    ]
    assert len(tables) == 3
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)
    [run_dir] = (clone.root / "outputs" / "runs").glob("*/*")
    assert (run_dir / ".hydra" / "overrides.yaml").read_text().split("\n")[-2] == "- seed=1"
    assert (run_dir / "run.log").is_file()


def test_a_diverged_run_fails_with_its_reason_and_the_others_finish(clone):
    code, out, err = clone.quick(
        *("-m", "data=digits", "trainer.epochs=2", "optim.lr=0.1,1e20,0.01", "hydra.launcher.n_jobs=1")
    )
    assert code == 1
    assert "Traceback" not in err + out
    assert "lr=1e+20: diverged: the loss was not finite at iteration" in err
    _, [parent], runs = runs_of(clone.store, "digits")
    by_name = {run.info.run_name: run for run in runs}
    assert {name: run.info.status for name, run in by_name.items()} == {
        "lr=0.1": "FINISHED",
        "lr=0.01": "FINISHED",
        "lr=1e+20": "FAILED",
    }
    assert parent.info.status == "FAILED"
    sick = by_name["lr=1e+20"]
    assert sick.data.tags["lockstep.reason"].startswith("diverged: the loss was not finite at iteration ")
    _, artifacts = artifacts_of(sick)
    of_network = ("pca/", "model/", "predictions", "confusion", "mistakes")
    assert artifacts == {a for a in ARTIFACTS if not a.startswith(of_network)}


def a_sweep_under_way(clone):
    """A sweep whose first run has finished, while its second will train for long: process, its workers."""
    with (clone.root / "printed").open("w") as printed:
        process = clone.start_anew("-m", "data=digits", "trainer.epochs=1,100000", stdout=printed)

    def first_is_recorded():
        if "epochs=100000" not in (clone.root / "printed").read_text():
            return False
        return {"FINISHED", "RUNNING"} == {run.info.status for run in runs_of(clone.store, "digits")[2]}

    until(first_is_recorded)
    workers = workers_of(process.pid)
    assert len(workers) == 3  # two train, one prepares the end
    return process, workers


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.faults)]
)
def test_a_killed_sweep_says_so_in_the_store(clone, sent, code):
    process, workers = a_sweep_under_way(clone)
    process.send_signal(sent)
    assert process.wait(timeout=60) == code
    until(lambda: not any(alive(pid) for pid in workers), seconds=5)  # the kernel clears up
    client, [parent], runs = runs_of(clone.store, "digits")
    assert {run.info.run_name: run.info.status for run in runs} == {
        "epochs=1": "FINISHED",
        "epochs=100000": "KILLED",
    }
    assert parent.info.status == "KILLED"
    # All that was printed is in the store, and at most the epoch that was about to be.
    [killed] = [run for run in runs if run.info.status == "KILLED"]
    printed = (clone.root / "printed").read_text().count("epochs=100000  epoch")
    stored = len(client.get_metric_history(killed.info.run_id, "test/loss"))
    assert printed <= stored <= printed + 1


@pytest.mark.faults  # in short: execution/test_pool.py
def test_workers_end_with_the_process_that_started_them_however_it_ends(clone):
    process, workers = a_sweep_under_way(clone)
    process.kill()
    process.wait()
    until(lambda: not any(alive(pid) for pid in workers), seconds=5)


def test_a_sweep_goes_on_when_nobody_reads_what_it_prints(clone):
    run = ("data=digits", "trainer.epochs=2", "model=logreg", "tracking.pictures=none")
    process = clone.start_anew("-m", *run, "seed=0,1", "hydra.launcher.n_jobs=1")
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=120)) == ("", 0)
    with open("/dev/full", "w") as full:
        assert clone.start_anew(*run, "rerun=true", stdout=full).wait(timeout=120) == 0
    _, parents, runs = runs_of(clone.store, "digits")
    assert [run.info.status for run in [*parents, *runs]] == ["FINISHED"] * 4


def test_a_sweep_ends_well_with_closed_streams_and_a_terminal_that_lacks_characters(clone):
    """The table at the end has ±, which ASCII lacks; standard error is closed."""
    words = [sys.executable, str(clone.root / "run.py"), "-m", "data=digits", "model=logreg", "seed=0,1"]
    words += ["trainer.epochs=1", "tracking.pictures=none", "hydra.launcher.n_jobs=2"]
    done = subprocess.run(
        ["bash", "-c", 'exec "$@" 2>&- <&-', "bash", *words],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert b" ? 0.0" in done.stdout
    _, [parent], runs = runs_of(clone.store, "digits")
    assert [run.info.status for run in [parent, *runs]] == ["FINISHED"] * 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MlflowException("no such table: runs\nSELECT"), "the store can't be used: no such table: runs"),
        (requests.ConnectionError("nobody is there"), "the store can't be used: nobody is there"),
        (
            OperationalError("BEGIN", None, Exception("locked")),
            "the store can't be used: (builtins.Exception) l",
        ),
        (
            FileNotFoundError(2, "No such file", "{unfinished}/1/run.json"),
            "[Errno 2] No such file: '{unfinished}",
        ),
        (
            NotADirectoryError(20, "Not a directory", "{unfinished}"),
            "[Errno 20] Not a directory: '{unfinished}'",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_store_or_run_folders_do_to_a_command_is_one_line(tmp_path, monkeypatch, capsys, error, said):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    monkeypatch.setattr(command, "in_job", nullcontext)
    monkeypatch.setattr(checks, "check_store", lambda configs: None)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    if isinstance(error, OSError) and error.filename:
        error.filename = error.filename.format(unfinished=unfinished())

    def fail():
        raise error

    nothing = SimpleNamespace(requests=[], search=None, launcher=LauncherConfig(n_jobs=1), master=None)
    assert command._carried_out(nothing, fail) == failures.FAILED
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(said.format(unfinished=unfinished()))
    assert lines[1:] == [f"Give the same command again: it resumes from what {unfinished()} has"]
    with pytest.raises(ZeroDivisionError):
        command._carried_out(nothing, lambda: 1 / 0)


def test_three_commands_at_once_on_an_empty_store_all_succeed(cold_clone):
    processes = [
        cold_clone.start(
            *("data=digits", "trainer.epochs=1", "model=logreg", f"seed={seed}", "tracking.pictures=none")
        )
        for seed in range(3)
    ]
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, [err for _, err in ended]
    _, _, runs = runs_of(cold_clone.store, "digits")
    assert sorted(run.data.params["seed"] for run in runs) == [str(seed) for seed in range(3)]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_refused_command_leaves_nothing_behind(cold_clone):
    code, out, err = cold_clone.quick("-m", "data=digits", "optim.lr=0.1,-1", "model.hiden_dim1=3")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "model.hiden_dim1=3: not a setting of model=mlp; it has hidden_dim1, hidden_dim2, hidden_dims,"
        " dropout, input_dropout, activation, max_norm; did you mean hidden_dim1?",
        "optim.lr=-1: must be greater than 0",
    ]
    assert not (cold_clone.root / "outputs").exists()


def test_a_dry_run_lists_arrays_and_trains_nothing(cold_clone):
    arguments = [
        "-m",
        "data=digits",
        "model=logreg,mlp",
        "seed=0,1",
        "hydra.launcher.n_jobs=2",
        "dry_run=true",
    ]
    code, out, err = cold_clone.quick(*arguments)
    assert (code, err) == (0, "")
    head, *rows = [line.split() for line in out.splitlines()]
    assert head == ["array", "runs", "training", "memory"]
    assert sorted(" ".join(row[:2] if row[1][0] == "s" else row[1:3]) for row in rows[:4]) == [
        f"{model} s{seed}" for model in ("logreg", "mlp") for seed in (0, 1)
    ]
    assert re.search(
        r"^4 runs in 2 arrays on 2 workers: about \d+ s of training, and 0\.7 MiB at once", out, re.M
    )
    assert not (cold_clone.root / "outputs").exists()
    assert cold_clone.quick(*arguments[:-1], "optim.lr=-1", "dry_run=true")[0] == 2


def test_jobs_folders_that_cannot_be_had_are_refused_before_anything_trains(clone):
    (clone.root / "sweep").mkdir()
    (clone.root / "sweep" / "1").write_text("in the way of the second run's folder")
    folders = (f"hydra.sweep.dir={clone.root}/sweep", "hydra.sweep.subdir=${seed}")
    code, _, err = clone.quick("-m", "data=digits", "seed=0,1", *folders)
    assert code == 2
    assert err.startswith("hydra.sweep.dir, hydra.sweep.subdir: [Errno 17] File exists: ")
    client = mlflow.MlflowClient(clone.store)
    assert client.search_runs([client.get_experiment_by_name("digits").experiment_id]) == []


def test_a_link_to_run_py_and_options_of_the_users_own(clone, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.py").symlink_to(clone.root / "run.py")
    (tmp_path / "mine" / "model").mkdir(parents=True)
    own = "name: mlp\nhidden_dims: [5, 4, 3]\ndropout: 0.0\nactivation: tanh\n"
    (tmp_path / "mine" / "model" / "small.yaml").write_text(own)
    arguments = ("--config-dir", str(tmp_path / "mine"), "data=digits", "trainer.epochs=1", "model=small")
    arguments += ("tracking.pictures=none",)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "elsewhere" / "link.py"), *arguments],
        capture_output=True,
        text=True,
        # Other tests set it by mlflow.set_tracking_uri.
        env={key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    _, _, [run] = runs_of(clone.store, "digits")
    assert run.data.params["model.hidden_dims"] == "[5, 4, 3]"


def test_a_servers_password_is_never_shown(refused):
    [problem, *_] = refused("data=digits", "tracking.uri='http://me:s3cret@127.0.0.1:9'")
    assert problem.startswith("tracking.uri=http://***@127.0.0.1:9: holds a password")
    [problem] = refused("data=digits", "tracking.uir='http://me:s3cret@127.0.0.1:9'")
    assert "s3cret" not in problem


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Run a command that must be refused: its messages. Hydra is never reached, the store never made."""

    def task(composed):
        pytest.fail("a run was started")

    def run(*arguments):
        monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        code = command.run(task, lambda: pytest.fail("Hydra was started"), REPOSITORY / "conf")
        assert code == 2
        assert not (tmp_path / "outputs").exists()
        return capsys.readouterr().err.splitlines()

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # so that the fixture's end restores it
    return run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-m", "--cfg", "hydra", "-p", "hydra.job"], "--multirun --cfg: give only one of --run, --multirun"),
        (["--run", "--multirun"], "--run --multirun: give only one of --run, --multirun, --cfg and --info"),
        (["-m", "--info", "defaults"], "--multirun --info: give only one of"),
        (["--resolve"], "--resolve: needs --cfg or --help"),
        (["--config-dir", "/nope"], "--config-dir=/nope: not a folder"),
        (["--config-name", ""], "--config-name=: a name is missing"),
        (["--config-name", "nope"], "Cannot find primary config 'nope'"),
        (["--config-path", "/nope"], "Primary config directory not found."),
        (["--experimental-rerun", "config.pickle"], "--experimental-rerun: not supported"),
        (["optim.lr", "=", "0.1"], "optim.lr: no value; write optim.lr=<value>, without spaces around ="),
    ],
)
def test_flags_that_hydra_answers_with_a_traceback_are_refused(refused, flags, message):
    assert refused("data=digits", *flags)[0].startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cfg", "hydra", "-p", "nope"], "package 'nope' not found in config"),
        (["--cfg", "job", "optim.momentun=1"], "Could not override 'optim.momentun'."),
        (["--cfg", "job", "optim.lr=("], "optim.lr=(: Hydra can't read this text without quotes"),
        (["--cfg", "job", "--resolve", "seed=${nope}"], "Hydra: Interpolation key 'nope' not found"),
        (["--help", "model=nope"], "In 'config': Could not find 'model/nope'"),
        (["--info", "defaults", "model=nope"], "In 'config': Could not find 'model/nope'"),
        (["--info", "config", "nope=1"], "Could not override 'nope'."),
        (["--shell-completion"], "Hydra: "),
        (["--hydra-help", "hydra/launcher=nope"], "In 'hydra/config': Could not find 'hydra/launcher/nope'"),
    ],
)
def test_what_hydra_cannot_show_is_answered_in_a_message(monkeypatch, capsys, tmp_path, arguments, message):
    hydra_main = hydra.main(config_path=str(REPOSITORY / "conf"), config_name="config", **VERSION_BASE)
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # Hydra adds its own

    def task(composed):
        pytest.fail("a run was started")

    assert command.run(task, hydra_main(task), REPOSITORY / "conf") == 2
    assert message in capsys.readouterr().err.splitlines()[0]


def test_a_sweep_uses_what_hydra_offers(clone, tmp_path):
    """Paired values, folders named by `${hydra:...}`, no preset, null among choices, a preset's own list."""
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    own = "{params: {seed: [5, 6], optim.momentum: [0.1, 0.2]}}"
    text = f"# @package _global_\nhydra: {{mode: MULTIRUN, sweeper: {own}}}\n"
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(text)
    common = ("data=digits", "model=logreg", "trainer.epochs=1", "tracking.pictures=none")
    folders = ('hydra.sweep.dir="${hydra:runtime.cwd}/x"', "hydra.sweep.subdir=${hydra.job.override_dirname}")
    code, _, err = clone.quick(
        *("-m", *common, *folders, "experiment=null"),
        *("optim={lr:0.1,momentum:0.5},{lr:0.2,momentum:0.7}", "optim.warmup_epochs=choice(null,0.5)"),
        "hydra.launcher.n_jobs=1",
    )
    assert (code, err) == (0, "")
    _, _, runs = runs_of(clone.store, "digits")
    keys = ("optim.lr", "optim.momentum", "optim.warmup_epochs")
    assert sorted(tuple(run.data.params[key] for key in keys) for run in runs) == [
        *(("0.1", "0.5", "0.5"), ("0.1", "0.5", "null"), ("0.2", "0.7", "0.5"), ("0.2", "0.7", "null"))
    ]
    made = {path.parent.name for path in (clone.root / "x").glob("*/.hydra")}
    assert len(made) == 4
    assert all(
        "optim={lr:0.1,momentum:0.5}" in name or "optim={lr:0.2,momentum:0.7}" in name for name in made
    )
    mine = (f"hydra.searchpath=[file://{tmp_path}/own]", "experiment=mine", "~optim.momentum")
    code, _, err = clone.quick(*common, *mine, "hydra.launcher.n_jobs=1", "optim.lr=0.3")
    assert (code, err) == (0, "")
    _, _, runs = runs_of(clone.store, "digits")
    found = [(p["seed"], p["optim.momentum"]) for run in runs if (p := run.data.params)["optim.lr"] == "0.3"]
    assert sorted(found) == [("5", "0.9"), ("6", "0.9")]


def test_streams_that_the_data_cannot_give_are_refused(refused):
    assert refused("-m", "data=digits", "data.batch_size=1437,1438,5000") == [
        "data.batch_size=1438: larger than the 1,437 training instances; allowed: 1 to 1437",
        "data.batch_size=5000: larger than the 1,437 training instances; allowed: 1 to 1437",
    ]
    [line] = refused("data=digits", "data.val_size=1437")
    assert line.startswith("data.val_size=1437: leaves none of the 1,437 training instances to train on")


def test_a_bad_npz_is_refused(refused, tmp_path):
    path = tmp_path / "mine.npz"
    lines = refused("data=arrays", f"data.path={path}")
    assert lines[0].startswith(f"data.path={path}: ")
    x = np.zeros((4, 2))
    np.savez(path, x_train=x, y_train=[0, 1, 0], x_test=x, y_test=[0, 1, 0, 5])
    lines = refused("data=arrays", f"data.path={path}")
    assert len(lines) == 2
    assert all(line.startswith(f"data.path={path}: ") for line in lines)


@pytest.mark.parametrize(
    ("argv", "alone"),
    [
        (["-m", "optim.lr=0.1,0.2"], []),
        (["experiment=explore"], ["hydra.mode=RUN"]),  # the preset makes it a search
        (
            ["-m", "--config-dir", "a b", "hydra.searchpath=[file://x]", "seed=0,1"],
            ["--config-dir=a b", "hydra.searchpath=[file://x]"],
        ),
    ],
)
def test_what_is_typed_to_train_one_run_of_a_sweep_alone(monkeypatch, argv, alone):
    monkeypatch.setattr(sys, "argv", ["run.py", *argv])
    typed = command._typed(arguments_parser().parse_args(argv), is_multirun=True)
    assert shlex.split(typed.whole) == ["python", "run.py", *argv]
    assert shlex.split(typed.alone) == ["python", "run.py", *alone]


def test_a_device_that_is_not_there_is_refused(refused):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    [line] = refused("data=digits", "trainer.device=cuda")
    assert line.startswith("trainer.device=cuda: not available on this machine")


@pytest.mark.parametrize(
    "uri",
    [
        "nonsense://somewhere",
        "sqlite:////dev/null/mlflow.db",
        "sqlite:///{here}/a_folder",
        "sqlite:///{here}/not_a_database",
        "sqlite://",
        "http://127.0.0.1:9",
        "./mlruns",
    ],
)
def test_an_unknown_or_unwritable_store_is_refused(refused, tmp_path, uri):
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "not_a_database").write_text("plain text" * 100)
    lines = refused("data=digits", f"tracking.uri='{uri.format(here=tmp_path)}'")
    assert lines[0].startswith(f"tracking.uri={uri.format(here=tmp_path)}: this store can't be used: ")
    assert lines[1].startswith("  allowed: an SQLite file")


def test_help_is_light_and_names_the_groups():
    script = (
        "import runpy, sys; sys.argv = ['run.py', '--help']\n"
        "try: runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print(sorted({'torch', 'mlflow', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    *text, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    for line in (
        "data: arrays, digits, fashion_mnist, mnist, table",
        "model: cnn, logreg, mlp, module",
        "optim: adam, adamw, sgd",
    ):
        assert line in text
