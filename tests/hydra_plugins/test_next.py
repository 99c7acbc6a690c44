"""Hydra's next version, which `make setup` installs beside the environment: a sweep and a search with it."""

import subprocess
import sys
from pathlib import Path

import pytest

NEXT = Path(sys.prefix) / "next"
COMMON = ("-m", "data=digits", "model=logreg", "trainer.epochs=1", "tracking.pictures=none")
COMMON += ("hydra.launcher.n_jobs=1",)  # a worker has no Hydra


def version(folder):
    script = "import hydra, omegaconf; print(hydra.__version__, omegaconf.__version__)"
    environment = {"PYTHONPATH": str(folder)}
    return subprocess.check_output([sys.executable, "-c", script], env=environment, text=True).split()


def test_it_is_the_next_version():
    hydra, omegaconf = version(NEXT)
    assert hydra.startswith("1.4."), "make setup installs it in .venv/next"
    assert omegaconf.startswith("2.4.")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("model=logreg,mlp", "optim.lr=0.1"), "model=logreg"),
        pytest.param(
            (
                "hydra/sweeper=search",
                "optim.lr=interval(0.1,1)",
                "data.val_size=300",
                "hydra.sweeper.n_trials=2",
            ),
            "2 runs: 2 trained to the end",
            marks=pytest.mark.faults,
        ),
    ],
    ids=["grid", "search"],
)
def test_it_carries_out_a_command_without_a_warning(clone, arguments, printed):
    code, out, err = clone.run(*COMMON, *arguments, extra={"PYTHONPATH": str(NEXT)})
    assert (code, err) == (0, "")
    assert printed in out
    [sweep] = (clone.root / "outputs" / "sweeps").glob("*/*")
    assert f"version: {version(NEXT)[0]}" in (sweep / "multirun.yaml").read_text()


def test_it_refuses_bad_input_in_one_message(clone):
    bad = ("optim.momentun=1", "optim.lr=-1")
    code, out, err = clone.run(*COMMON, *bad, extra={"PYTHONPATH": str(NEXT)})
    assert (code, out) == (2, "")
    assert [line.partition(":")[0] for line in err.splitlines()] == list(bad)
