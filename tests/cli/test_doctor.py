"""What the doctor looks at, and what it says of a machine that does not keep bits."""

import sys

import pytest
import torch

from lockstep.cli import doctor
from lockstep.cli.verbs import main
from lockstep.training import bit_check
from lockstep.training.array import TrainingArray


@pytest.fixture
def diagnosed(monkeypatch, capsys):
    """Run the command with few steps: its exit code, and what it prints."""
    monkeypatch.setattr(bit_check, "N_STEPS", 5)
    monkeypatch.setattr(doctor.console, "_file", None)  # rich then follows sys.stdout, which capsys replaced
    monkeypatch.setattr(sys, "argv", ["lockstep", "doctor"])
    return lambda: (main(), capsys.readouterr().out)


def test_this_machine_keeps_bits_in_float32_and_says_so(diagnosed):
    code, printed = diagnosed()
    assert code == 0
    assert "MLP 784-256-100-10   yes" in printed
    assert printed.endswith("Sweeps in float32 keep every bit here.\n")


def noisy_when_stacked(monkeypatch):
    """Let a run's numbers depend on its neighbours, as another machine's kernels might."""
    train = TrainingArray.train

    def noisy(array, *args):
        loss_KxT, accuracy_KxT = train(array, *args)
        stacked = max(len(stack.runs) for stack in array._stacks) > 1
        return torch.nextafter(loss_KxT, torch.tensor(9.0).double()) if stacked else loss_KxT, accuracy_KxT

    monkeypatch.setattr(TrainingArray, "train", noisy)


def test_a_machine_whose_batched_kernels_round_otherwise_is_told_to_be_exact(diagnosed, monkeypatch):
    noisy_when_stacked(monkeypatch)
    code, printed = diagnosed()
    assert code == 1
    assert "logistic regression  no" in printed
    assert "give hydra.launcher.exact=true, which keeps every bit" in printed
