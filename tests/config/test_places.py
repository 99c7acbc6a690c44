"""Where outputs and settings are: in a checkout, and with a package that is installed elsewhere."""

import os

import pytest
from helpers.clone import REPOSITORY

from lockstep.config import places


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """The package as a wheel has it; its folder. No root is set."""
    package = tmp_path / "site-packages" / "lockstep"
    monkeypatch.setattr(places, "_PACKAGE", package)
    monkeypatch.setenv("LOCKSTEP_ROOT", "")
    return package


def test_outside_a_checkout_outputs_are_in_the_current_folder(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (places.checkout(), places.conf()) == (None, installed / "conf")
    assert places.outputs() == tmp_path / "outputs"


def test_in_a_checkout_outputs_are_in_it_wherever_a_command_starts(tmp_path, monkeypatch):
    monkeypatch.delenv("LOCKSTEP_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert (places.root(), places.conf()) == (REPOSITORY, REPOSITORY / "conf")


def test_a_command_in_another_checkout_acts_on_that_ones_outputs(cold_clone, monkeypatch):
    monkeypatch.delenv("LOCKSTEP_ROOT", raising=False)
    monkeypatch.chdir(cold_clone.root)
    assert places.root() == cold_clone.root


def test_a_root_that_is_settled_stays(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places.settle()
    monkeypatch.chdir("/")
    assert places.root() == tmp_path
    assert os.environ["LOCKSTEP_ROOT"] == str(tmp_path)
