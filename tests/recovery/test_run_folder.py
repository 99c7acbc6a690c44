"""Folders of unfinished runs: what is read back, and what a kill at any moment leaves."""

import os

import numpy as np
import pytest
import torch
from helpers.configs import LOGREG, run_config
from helpers.events import EVENTS, epoch

from lockstep.recovery.description import Description
from lockstep.recovery.journal import Ended
from lockstep.recovery.run_folder import RunFolder, folder_name, folders
from lockstep.training.checkpoint import from_bytes, to_bytes


def description(**settings):
    config = run_config(LOGREG).model_dump(mode="json", exclude={"tracking": {"uri"}})
    return Description(
        **{
            "kind": "run",
            "name": "a run",
            "overrides": ["seed=0"],
            "uri": "sqlite:////somewhere.db",
            "experiment": "digits",
            "config": config,
            **settings,
        }
    )


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "unfinished" / "abc")
    folder.create(description())
    return folder


def test_a_description_comes_back(folder):
    described = folder.read()
    assert described == description(token=described.token)
    described.run_id, described.closed = "0123", True
    folder.write(described)
    assert RunFolder(folder.path).read() == described
    config = described.run_config("sqlite:////elsewhere.db")
    assert config.tracking.uri == "sqlite:////elsewhere.db"
    assert config.run_key("digest") == run_config(LOGREG).run_key("digest")


def test_the_last_checkpoint_comes_back_with_the_history_up_to_it(folder):
    assert folder.checkpoint() is None
    state = {"params": torch.arange(5.0), "dropout": torch.Generator().manual_seed(3).get_state()}
    for index in range(3):
        folder.journal.append(epoch((float(index), 1.0)))
        if index < 2:
            folder.save(index + 1, to_bytes({**state, "params": state["params"] + index}))
    assert sorted(path.name for path in folder.path.glob("*.pt")) == ["checkpoint-2.pt"]
    history, saved = folder.checkpoint()
    assert history.epochs == 2
    assert np.array_equal(history.loss_T, [0, 1, 1, 1])
    loaded, _ = from_bytes(saved)
    assert torch.equal(loaded["params"], state["params"] + 1)
    assert torch.equal(loaded["dropout"], state["dropout"])
    history, ended = folder.history()
    assert (history.epochs, ended) == (3, None)
    folder.journal.append(Ended("OSError: none"))
    assert folder.history()[1] == Ended("OSError: none")


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_earlier(folder, monkeypatch, call):
    folder.journal.append(EVENTS[0])
    folder.save(1, to_bytes({"params": torch.ones(3)}))
    folder.journal.append(EVENTS[1])

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(folder.journal, "sync", lambda: None)
        if call == "fsync":
            patch.setattr(os, "fsync", killed)
        else:
            patch.setattr(type(folder.path), "rename", killed)
        with pytest.raises(Killed):
            folder.save(2, to_bytes({"params": torch.zeros(3)}))
    assert folder.checkpoint()[0].epochs == 1
    folder.save(2, to_bytes({"params": torch.zeros(3)}))
    assert folder.checkpoint()[0].epochs == 2
    assert torch.equal(from_bytes(folder.checkpoint()[1])[0]["params"], torch.zeros(3))


def test_a_folder_is_there_until_its_removal_and_what_is_left_of_it_is_no_run(folder, monkeypatch):
    root = folder.path.parent
    assert [found.path for found in folders(root)] == [folder.path]
    assert [found.path for found in folders(folder.path)] == [folder.path]
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            folder.remove()
    assert [path.name for path in root.iterdir()] == ["abc.removed"]
    assert list(folders(root)) == []
    folder.create(description())
    folder.remove()
    assert not folder.path.exists()


def test_names_tell_stores_experiments_and_sweeps_apart():
    names = [
        folder_name(*identity)
        for identity in (
            ("run", "s", "e", "a"),
            ("sweep", "s", "e", "a"),
            ("sweep", "s", "e", "a", "b"),
            ("sweep", "s", "e", "b", "a"),
            ("run", "s", "f", "a"),
            ("run", "t", "e", "a"),
        )
    ]
    assert len(set(names)) == 6
    assert names[0] == folder_name("run", "s", "e", "a")
