"""A task in this process: arrays that don't fit, disks that are full, checkpoints at different epochs."""

import errno
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.configs import MLP, quiet, run_config, sgd
from helpers.tasks import Received, mlps, tasks_of

from lockstep.data.datasets import load
from lockstep.data.description import iterations_per_epoch
from lockstep.execution import library_warnings
from lockstep.execution import task_training as task_module
from lockstep.execution.task_training import train_task
from lockstep.pictures import representations, run_pictures
from lockstep.recovery.journal import Ended, Journal
from lockstep.recovery.run_folder import RunFolder
from lockstep.training.loop import train

ARTIFACTS = {
    *("config.yaml", "history.parquet", "model/state_dict.pt", "samples.png"),
    *("predictions.parquet", "confusion.png", "mistakes.png"),
    *("curves/loss.png", "curves/accuracy.png", "pca/explained_variance.json"),
    *("pca/input.png", "pca/hidden1.png", "pca/hidden2.png"),
}


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


@pytest.mark.parametrize(
    ("module", "name", "lost"),
    [
        (representations, "separation", "no metrics of feature spaces"),
        (run_pictures, "_draw_curves", "no curves"),
        (run_pictures, "_draw_mistakes", "no pictures of mistakes"),
        (run_pictures, "planes_of", "no pictures of hidden layers"),
        (run_pictures, "draw_data", "no pictures of the data"),
    ],
)
def test_a_diagnostic_that_fails_costs_the_run_nothing_else(tmp_path, monkeypatch, module, name, lost):
    def broken(*_):
        raise RuntimeError("ARPACK error -9")

    monkeypatch.setattr(module, name, broken)
    ended = {}
    trained([run_config(MLP, epochs=1)], tmp_path, ended.__setitem__)
    assert ended[0].warnings == [f"{lost}: RuntimeError: ARPACK error -9"]
    assert ended[0].reason == ""
    assert bool(ended[0].metrics) == (name != "separation")
    artifacts = {str(p.relative_to(tmp_path / "0/artifacts")) for p in tmp_path.glob("0/artifacts/**/*.*")}
    missing = {
        "_draw_curves": {"curves/loss.png", "curves/accuracy.png"},
        "_draw_mistakes": {"confusion.png", "mistakes.png"},
        "planes_of": {"pca/hidden1.png", "pca/hidden2.png"},
        "draw_data": {"samples.png", "pca/input.png"},
    }
    assert artifacts == ARTIFACTS - missing.get(name, set())


@pytest.mark.parametrize(("pictures", "kept"), [("none", set()), ("best", {"predictions.parquet"})])
def test_runs_keep_their_predictions_also_where_only_the_winner_has_pictures(tmp_path, pictures, kept):
    config = run_config(MLP, epochs=1)
    tracking = config.tracking.model_copy(update={"pictures": pictures})
    trained([config.model_copy(update={"tracking": tracking})], tmp_path, lambda *_: None)
    files = {str(p.relative_to(tmp_path / "0/artifacts")) for p in tmp_path.glob("0/artifacts/**/*.*")}
    assert files == {"config.yaml", "history.parquet", "model/state_dict.pt"} | kept


def test_what_libraries_warn_of_in_a_worker_is_in_the_runs_end(tmp_path, monkeypatch):
    def warns(*_):
        for _ in range(2):
            warnings.warn("only one class", UserWarning, stacklevel=1)
        return {}

    monkeypatch.setattr(representations, "separation", warns)
    ended = {}
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", library_warnings.keep)
        trained(mlps(2, epochs=1), tmp_path, lambda k, event: ended.update({k: event}))
    assert [ended[k].library_warnings for k in (0, 1)] == [["UserWarning: only one class"]] * 2


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


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_run_that_paused_amid_an_epoch_resumes_to_the_same_also_without_its_checkpoint(tmp_path, is_lost):
    configs = mlps(1, epochs=3, val_size=100, patience=1)
    steps = iterations_per_epoch(configs[0].data, load(configs[0].data).description)
    rungs, received = (steps // 2, steps + 3, steps + 5), Received(1)
    [whole] = train(configs, load(configs[0].data))
    [task] = tasks_of(configs, [range(1)], tmp_path)
    for pause_at in (*rungs, None):
        train_task(replace(task, pause_at=pause_at, rungs=rungs), load(configs[0].data), received.receive)
        if is_lost:
            for path in RunFolder(tmp_path / "0").checkpoints().values():
                path.unlink()
    [history] = received.histories
    assert history.rungs == list(rungs)
    assert [iterations for iterations, _ in history.marks] == sorted({*rungs, *history.epoch_ends})
    assert np.array_equal(history.loss_T, whole.history.loss_T)
    assert [history.of(split) for split in ("test", "val")] == [
        whole.history.of(split) for split in ("test", "val")
    ]
    assert received.ends[0].restored_epoch == whole.history.restored_epoch
    assert history.summary().keys() == whole.history.summary().keys()
    weights = torch.load(tmp_path / "0/artifacts/model/state_dict.pt", weights_only=True)
    assert all(torch.equal(weights[name], tensor) for name, tensor in whole.network.state_dict().items())


def test_a_run_that_is_killed_stops_at_the_same_epoch_and_restores_the_same(tmp_path, monkeypatch):
    # Its best epoch is before its last checkpoint or after it; or all epochs are journaled, the end is not.
    settings = {"optim": sgd(0.3), "epochs": 12, "val_size": 100, "checkpoint_seconds": 0.0}
    configs = [quiet(run_config(MLP, seed=0, patience=3, **settings))]
    whole = Received(1)
    trained(configs, tmp_path / "whole", whole.receive)
    stopped, best = whole.ends[0].stopped_at, whole.ends[0].restored_epoch
    assert 1 < best == stopped - 3 < stopped < 12
    save = RunFolder.save

    class Killed(BaseException):
        pass

    for saved, last in ((best + 1, best + 2), (best - 1, stopped), (0, best)):
        folder = tmp_path / f"killed-{saved}-{last}"
        monkeypatch.setattr(
            RunFolder, "save", lambda folder, n, state, saved=saved: n == saved and save(folder, n, state)
        )
        received = Received(1)

        def killed(number, event, received=received, last=last):
            received.receive(number, event)
            if received.histories[0].epochs == last:
                raise Killed

        with pytest.raises(Killed):
            trained(configs, folder, killed)
        monkeypatch.undo()
        assert list(RunFolder(folder / "0").checkpoints()) == ([saved] if saved else [])
        [task] = tasks_of(configs, [range(1)], tmp_path / f"again-{saved}-{last}")
        task = task.of(replace(run, folder=folder / "0") for run in task.runs)
        train_task(task, load(configs[0].data), received.receive)
        assert received.ends == whole.ends
        assert received.histories[0].evaluations == whole.histories[0].evaluations
        for file in ("history.parquet", "model/state_dict.pt"):
            again = folder / "0/artifacts" / file
            assert again.read_bytes() == (tmp_path / "whole/0/artifacts" / file).read_bytes()
