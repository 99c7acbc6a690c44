"""The canary: the same each time, another wherever a kernel rounds otherwise."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.configs import run_config

from lockstep.data.datasets import load
from lockstep.recovery.journal import Ended
from lockstep.results.history import History
from lockstep.tracking.tags import conclusion
from lockstep.training import array, canary, stack
from lockstep.training.loop import train
from lockstep.training.run import Run

CPU = torch.device("cpu")


def canary_now(precision="float32"):
    return canary.canary.__wrapped__(CPU, precision)


def test_it_does_not_depend_on_the_threads_of_the_process_and_leaves_them_alone():
    torch.set_num_threads(2)
    try:
        assert canary_now() == canary.canary(CPU, "float32")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert len({canary_now(precision) for precision in ("float32", "bfloat16", "float64")}) == 3


def nudged(value):
    """One bit away in one place."""
    changed = value.clone()
    first = changed.view(-1)[:1]
    first.copy_(torch.nextafter(first, torch.full_like(first, torch.inf)))
    return changed


@pytest.mark.parametrize("kernel", ["a loss", "weights", "evaluation", "NumPy"])
def test_one_bit_of_any_kernel_changes_it(monkeypatch, kernel):
    if kernel == "a loss":
        cross_entropy = torch.nn.functional.cross_entropy
        monkeypatch.setattr(
            stack.nn.functional, "cross_entropy", lambda *a, **k: nudged(cross_entropy(*a, **k))
        )
    elif kernel == "weights":
        update = Run.update
        monkeypatch.setattr(
            Run, "update", lambda run: (update(run), run.params_P.copy_(nudged(run.params_P)))
        )
    elif kernel == "evaluation":
        evaluate = array.TrainingArray.evaluate

        def of_nudged(*arguments):
            scores = evaluate(*arguments)
            return replace(scores, loss_K=nudged(torch.from_numpy(scores.loss_K)).numpy())

        monkeypatch.setattr(array.TrainingArray, "evaluate", of_nudged)
    else:
        matmul = np.ndarray.__matmul__
        monkeypatch.setattr(canary, "_product", lambda x: np.nextafter(matmul(x.T, x), np.inf))
    assert canary_now() != canary.canary(CPU, "float32")


def test_each_epoch_has_it_and_the_runs_tag_has_those_of_all_machines(monkeypatch):
    config = run_config(epochs=2)
    [run] = train([config], load(config.data))
    assert run.history.canaries == [canary.canary(CPU, "float32")]
    history = History(canaries=["0123", "4567"])
    for ended in (Ended(), Ended("OSError: none"), Ended(pruned_at=1)):
        assert conclusion(history, ended)[1]["lockstep.canary"] == "0123 4567"
    assert "lockstep.canary" not in conclusion(History(), Ended())[1]  # of a journal of version 0.1.0


@pytest.mark.faults
@pytest.mark.parametrize("setting", ["ATEN_CPU_CAPABILITY=default", "MKL_CBWR=COMPATIBLE"])
def test_settings_that_change_kernels_change_it(setting):
    code = (
        "import torch; from lockstep.training.canary import canary;"
        "print(canary(torch.device('cpu'), 'float32'))"
    )
    command = ["env", setting, sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() != canary.canary(CPU, "float32")
