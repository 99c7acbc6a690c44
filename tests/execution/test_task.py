"""A task in this process: arrays that don't fit, disks that are full, checkpoints at different epochs."""

import errno
from dataclasses import replace

import numpy as np
import pytest
from helpers.tasks import Received, mlps, tasks_of

from lockstep.data.datasets import load
from lockstep.execution import task as task_module
from lockstep.execution.task import train_task
from lockstep.recovery.journal import Ended, Journal
from lockstep.recovery.run_folder import RunFolder


def trained(configs, folder, report):
    [task] = tasks_of(configs, [range(len(configs))], folder)
    train_task(task, load(configs[0].data), report)


def test_an_array_that_does_not_fit_is_split(tmp_path, monkeypatch):
    train = task_module.train

    def fits(configs, *args):
        if len(configs) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        if configs[0].seed == 1:
            raise MemoryError("not even one")
        return train(configs, *args)

    monkeypatch.setattr(task_module, "train", fits)
    received = Received(3)
    trained(mlps(3, epochs=2), tmp_path, received.receive)
    assert received.ends[0] == received.ends[2] == Ended()
    assert received.ends[1].reason == "MemoryError: not even one"
    assert [history.epochs for history in received.histories] == [2, 0, 2]


def test_no_room_to_write_ends_all(tmp_path, monkeypatch):
    def full(journal, event):
        raise OSError(errno.ENOSPC, "No space left on device", str(journal.path))

    monkeypatch.setattr(Journal, "append", full)
    received = Received(2)
    with pytest.raises(OSError, match=r"No space left on device: .*/journal"):
        trained(mlps(2, epochs=3), tmp_path, received.receive)
    assert received.ends == {}


def test_runs_whose_checkpoints_are_epochs_apart_give_what_they_give_undisturbed(tmp_path, monkeypatch):
    configs = mlps(3, epochs=6, checkpoint_seconds=0.0)
    whole = Received(3)
    trained(configs, tmp_path / "whole", whole.receive)
    # As kills at different moments leave them: no checkpoint, one after 2 epochs, one after 4, 5 journaled.
    save = RunFolder.save
    keep = {0: (), 1: (2,), 2: (4,)}
    monkeypatch.setattr(
        RunFolder,
        "save",
        lambda folder, n, state: n in keep[int(folder.path.name)] and save(folder, n, state),
    )

    class Killed(BaseException):
        pass

    def killed(number, event):
        received.receive(number, event)
        if number == 2 and received.histories[2].epochs == 5:
            raise Killed

    received = Received(3)
    with pytest.raises(Killed):
        trained(configs, tmp_path / "killed", killed)
    monkeypatch.undo()
    [task] = tasks_of(configs, [range(3)], tmp_path / "other")
    task = task.of(replace(run, folder=tmp_path / "killed" / str(run.number)) for run in task.runs)
    assert [(RunFolder(run.folder).checkpoint() or None) is None for run in task.runs] == [True, False, False]
    train_task(task, load(configs[0].data), received.receive)
    for a, b in zip(received.histories, whole.histories, strict=True):
        assert np.array_equal(a.loss_T, b.loss_T)
        assert a.evaluations == b.evaluations
    for k in range(3):
        weights = [
            tmp_path / which / str(k) / "artifacts/model/state_dict.pt" for which in ("whole", "killed")
        ]
        assert weights[0].read_bytes() == weights[1].read_bytes()
