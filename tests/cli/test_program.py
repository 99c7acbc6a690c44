"""The installed `lockstep` command, outside a checkout."""

import os
import shutil
import subprocess
import sys
from zipfile import ZipFile

import mlflow
import pytest
from helpers.clone import REPOSITORY

from lockstep.cli import program, run, verbs


@pytest.fixture
def installed(tmp_path, empty_store):
    """Carries out `lockstep` as an installed wheel has it, in a folder with a store."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    site, script, folder = tmp_path / "site", tmp_path / "bin" / "lockstep", tmp_path / "mine"
    with ZipFile(wheel) as content:
        content.extractall(site)
    [entry] = site.glob("*.dist-info/entry_points.txt")
    assert "lockstep = lockstep.cli.program:main" in entry.read_text()
    # What the wheel lacks is not found in the checkout, which may be installed here, too.
    without = (
        f"import sys\nsys.path[:] = [path for path in sys.path if path != {str(REPOSITORY / 'src')!r}]\n"
    )
    (site / "sitecustomize.py").write_text(without)
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom lockstep.cli.program import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    (folder / "outputs").mkdir(parents=True)
    shutil.copy(empty_store, folder / "outputs" / "mlflow.db")  # MLflow takes seconds to make one

    def carry_out(*arguments):
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "LOCKSTEP"))
        }
        environment |= {"PYTHONPATH": str(site), "PATH": f"{script.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["lockstep", *arguments], cwd=folder, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    return folder, carry_out


def test_an_installed_command_sweeps_with_workers_in_the_current_folder_with_the_users_options(installed):
    folder, lockstep = installed
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "small.yaml").write_text("defaults: [mlp]\nhidden_dims: [8]\n")
    sweep = ("data=digits", "model=small,logreg", "trainer.epochs=1", "tracking.pictures=none")
    code, out, err = lockstep("-m", "--config-dir", "conf", *sweep, "hydra.launcher.n_jobs=2")
    assert (code, err) == (0, "")
    assert "array 1 of 2 runs" not in out  # each worker has one
    assert {path.name for path in folder.iterdir()} == {"conf", "outputs"}
    assert {"mlflow.db", "artifacts", "sweeps"} <= {path.name for path in (folder / "outputs").iterdir()}
    [alone] = [line for line in out.splitlines() if "alone" in line]
    assert alone.startswith("To train the best run alone: lockstep --config-dir=conf data=digits model=")
    assert "run.py" not in out
    runs = mlflow.MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db").search_runs(["1"])
    assert {run.info.run_name for run in runs} == {"model, 2 runs", "small", "logreg"}
    assert {run.data.tags["mlflow.source.name"] for run in runs} == {"lockstep"}


@pytest.fixture
def dispatched(monkeypatch, tmp_path):
    """What carries out the words after `lockstep`."""
    listening = []
    monkeypatch.setattr(program.interrupts, "listen", lambda: listening.append(True))
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    monkeypatch.setenv("LOCKSTEP_PROGRAM", "")
    monkeypatch.setattr(verbs, "main", lambda: "verbs")
    monkeypatch.setattr(run, "main", lambda conf_dir: conf_dir)

    def dispatch(*words):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lockstep", *words])
        listening.clear()
        carried_out_by = program.main()
        assert listening == [True]  # to Ctrl-C
        return carried_out_by

    return dispatch


@pytest.mark.parametrize("word", ["report", "reprot", "doctor", ""])
def test_a_word_is_a_verb(dispatched, word):
    assert dispatched(word) == dispatched() == "verbs"


@pytest.mark.parametrize("word", ["optim.lr=0.1", "-m", "--help", "+a", "~optim.lr", "optim="])
def test_overrides_and_flags_train(dispatched, word):
    assert dispatched(word, "report") == REPOSITORY / "conf"


def test_a_misspelt_verb_is_refused_with_the_nearest_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lockstep", "reprot"])
    with pytest.raises(SystemExit) as ended:
        verbs.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("ui, relocate; did you mean report?\n")
