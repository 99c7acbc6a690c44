"""A study that is opened again, whatever a kill has left of it."""

import pytest
from helpers.configs import search
from optuna.trial import TrialState

from lockstep.search.rules import Rules
from lockstep.search.rungs import Rungs
from lockstep.search.study import FILE, Study


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """Where what is damaged is kept."""
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))


def of(settings):
    return Rules(settings, Rungs.of(settings, 10, 781), 10, "study")


def suggest(trial):
    trial.suggest_float("lr", 0.001, 1, log=True)
    trial.suggest_categorical("width", [16, 32])


def proposals(study, n):
    trials = [study.ask(suggest) for _ in range(n)]
    for trial in trials:
        study.optuna.tell(trial, trial.params["lr"])
    return [trial.params for trial in trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes"])
@pytest.mark.filterwarnings("ignore")  # Optuna's, of samplers that it calls experimental
def test_one_that_is_opened_again_proposes_what_it_would_have(tmp_path, sampler):
    settings = search(sampler=sampler, seed=3)
    whole = Study(tmp_path / "whole", of(settings))
    expected = [proposals(whole, 4) for _ in range(4)]
    for part in expected:
        assert proposals(Study(tmp_path / "parts", of(settings)), 4) == part
    other = Study(tmp_path / "other", of(search(sampler=sampler, seed=4)))
    assert proposals(other, 4) != expected[0]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_kill_while_a_trial_is_asked_for_changes_no_proposal(tmp_path, sampler):
    settings, folder = search(sampler=sampler), tmp_path / "study"
    path, seals = folder / FILE, folder / f"{FILE}.seals"
    study = Study(folder, of(settings))
    before = path.stat().st_size
    expected = [study.ask(suggest).params for _ in range(2)]
    log, sealing = path.read_bytes(), seals.read_bytes()
    ends = [end for end in range(before, len(log)) if log[end - 1 : end] == b"\n"]
    assert len(ends) > 4
    for end in [end + more for end in ends for more in (0, 7)]:
        path.write_bytes(log[:end])
        seals.write_bytes(sealing)
        again = Study(folder, of(settings))
        trials = again.running()
        for trial in trials:
            suggest(trial)
        trials += [again.ask(suggest) for _ in range(2 - len(trials))]
        assert [trial.params for trial in trials] == expected, end


def damaged(log, seals):
    """A study's files after a kill or an accident, by what happened: log, seals, whether it is said."""
    lines = log.splitlines(keepends=True)
    last, middle = len(log) - len(lines[-1]), len(log) // 2
    yield "killed before the last part was written", log[:last], seals, False
    yield "killed while it was written", log[: last + 9], seals, False
    yield "killed while its seal was written", log[:last], seals[:-9], False
    yield "of version 0.1.0", log, None, False
    yield "of version 0.1.0, killed", log[: last + 9], None, False
    yield "halved", log[:middle], seals, True
    yield "lost", b"", seals, True
    yield "changed", log[:middle].replace(b"0.", b"1.") + log[middle:], seals, True
    yield "a line lost", b"".join(lines[:4] + lines[5:]), seals, True
    yield "garbage at its end", log + b"\xff garbage", seals, True
    yield "a line added", log + lines[-1], seals, True
    yield "seals changed", log, seals[:40] + b"0" + seals[41:], True


def test_of_a_damaged_log_what_is_whole_is_kept_and_the_rest_is_said(tmp_path, caplog):
    folder = tmp_path / "study"
    expected = proposals(Study(folder, of(search())), 2)
    path, seals = folder / FILE, folder / f"{FILE}.seals"
    files = path.read_bytes(), seals.read_bytes()
    for what, log, sealing, is_said in damaged(*files):
        caplog.clear()
        path.write_bytes(log)
        seals.write_bytes(sealing) if sealing is not None else seals.unlink()
        again = Study(folder, of(search()))
        assert bool(caplog.messages) == is_said, what
        assert all(str(tmp_path / "outputs/unfinished/damaged/study") in said for said in caplog.messages)
        trials = again.optuna.get_trials()
        told = [trial.params for trial in trials if trial.state.is_finished()]
        assert told == expected[: len(told)], what
        assert (len(told) < 2) == (path.stat().st_size < len(files[0])), what
        proposals(again, 1)
        caplog.clear()
        assert len(Study(folder, of(search()))) == len(trials) + 1, what
        assert caplog.messages == [], what


def test_a_trial_that_was_not_told_is_still_running_with_what_it_was_given(tmp_path):
    study = Study(tmp_path, of(search()))
    value = study.ask(lambda trial: trial.suggest_float("lr", 0, 1)).params["lr"]
    [trial] = Study(tmp_path, of(search())).running()
    assert trial.params == {"lr": value}
    assert trial.suggest_float("lr", 0, 1) == value
    assert study.optuna.get_trials()[0].state == TrialState.RUNNING
