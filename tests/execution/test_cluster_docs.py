"""The commands of docs/cluster.md, in a clone."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.clone import REPOSITORY

BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (REPOSITORY / "docs" / "cluster.md").read_text(), re.M | re.S)


def block(word):
    [found] = [block for block in BLOCKS if word in block]
    return found


def carried_out(script, clone, **environment):
    """Run a script as a reader would, with the virtual environment active."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "MLFLOW_PORT": "5000"}
    own |= {
        "PYTHONPATH": str(REPOSITORY / "src"),
        "DASK_LOGGING__DISTRIBUTED": "error",
        "HOME": str(clone.root),
    }
    script = script.replace("dask scheduler", "dask scheduler --port 0")
    printed = clone.root / "printed"
    with printed.open("w") as file:
        group = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=clone.root,
            env={**os.environ, **own, **environment},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            code = group.wait(timeout=200)
        finally:
            os.killpg(group.pid, signal.SIGKILL)  # what the script has left in the background
    assert code == 0, printed.read_text()
    return printed.read_text()


def test_a_cluster_with_certificates(clone):
    sweep = "python run.py -m data=digits model=logreg trainer.epochs=1 seed=0,1 tracking.pictures=none"
    script = block("openssl req") + block("REQUIRE_ENCRYPTION")
    script += "while [ ! -s scheduler.json ]; do sleep 0.1; done\n"
    out = carried_out(f"{script}{sweep} hydra.launcher.cluster=scheduler.json", clone)
    assert "Cluster scheduler.json: 1 worker" in out
    assert "tls://" in (clone.root / "scheduler.json").read_text()
    assert "without TLS" not in out


@pytest.mark.faults
def test_a_cluster_on_one_machine(clone):
    script = block("--nworkers 2 --nthreads 1 &\npython run.py -m data=digits")
    out = carried_out(script, clone)
    assert "Cluster scheduler.json: 2 workers" in out
    assert "All workers compute as this machine does." in out


@pytest.mark.faults
def test_a_job_of_slurm(clone):
    """Its script, where srun starts what it is given on this machine."""
    script = block("#SBATCH").replace(". .venv/bin/activate\n", "")
    script = script.replace("--nworkers 8", "--nworkers 2")
    script = script.replace("val_size=10000", "val_size=300 data=digits hydra.sweeper.n_trials=4")
    own = {"SLURM_JOB_ID": "7", "TMPDIR": str(clone.root / "outputs")}
    out = carried_out(f'srun() {{ "$@"; }}\n{script}', clone, **own)
    assert "Cluster scheduler-7.json: 2 workers" in out
