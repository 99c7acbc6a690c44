"""A study that is opened again, whatever a kill has left of it."""

import pytest
from helpers.configs import search
from optuna.trial import TrialState

from lockstep.search.study import FILE, Study


def proposals(study, n):
    trials = []
    for _ in range(n):
        trial = study.ask()
        trial.suggest_float("lr", 0.001, 1, log=True)
        trial.suggest_categorical("width", [16, 32])
        trials.append(trial)
    for trial in trials:
        study.optuna.tell(trial, trial.params["lr"])
    return [trial.params for trial in trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes"])
@pytest.mark.filterwarnings("ignore")  # Optuna's, of samplers that it calls experimental
def test_one_that_is_opened_again_proposes_what_it_would_have(tmp_path, sampler):
    settings = search(sampler=sampler, seed=3)
    whole = Study(tmp_path / "whole", settings, 10)
    expected = [proposals(whole, 4) for _ in range(4)]
    for part in expected:
        assert proposals(Study(tmp_path / "parts", settings, 10), 4) == part
    other = Study(tmp_path / "other", search(sampler=sampler, seed=4), 10)
    assert proposals(other, 4) != expected[0]


def test_half_a_line_is_done_away_with(tmp_path):
    proposals(Study(tmp_path, search(), 10), 2)
    path = tmp_path / FILE
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"torn')
    again = Study(tmp_path, search(), 10)
    assert len(again) == 2
    assert path.read_bytes().startswith(whole)
    assert b"torn" not in path.read_bytes()
    proposals(again, 1)
    assert len(Study(tmp_path, search(), 10)) == 3


def test_a_trial_that_was_not_told_is_still_running_with_what_it_was_given(tmp_path):
    study = Study(tmp_path, search(), 10)
    value = study.ask().suggest_float("lr", 0, 1)
    [trial] = Study(tmp_path, search(), 10).running()
    assert trial.params == {"lr": value}
    assert trial.suggest_float("lr", 0, 1) == value
    assert study.optuna.get_trials()[0].state == TrialState.RUNNING
