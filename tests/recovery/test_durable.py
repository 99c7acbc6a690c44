"""Files that are replaced in one step."""

import os
import shutil
from pathlib import Path

import pytest

from lockstep.recovery import durable


@pytest.mark.parametrize("step", ["open", "rename"])
def test_a_file_whose_folder_is_removed_while_it_is_written_is_written_again(tmp_path, monkeypatch, step):
    path, taken = tmp_path / "folder" / "run.json", []
    undisturbed = getattr(Path, step)

    def removed_first(self, *args, **kwargs):
        if not taken:
            taken.append(self)
            shutil.rmtree(path.parent)
        return undisturbed(self, *args, **kwargs)

    monkeypatch.setattr(Path, step, removed_first)
    durable.replace(path, b"content")
    assert path.read_bytes() == b"content"
    assert taken == [path.with_suffix(".part")]
    assert os.listdir(path.parent) == ["run.json"]


def test_a_folder_that_is_removed_again_and_again_is_an_error(tmp_path, monkeypatch):
    path, undisturbed = tmp_path / "folder" / "run.json", Path.rename

    def removed_first(self, target):
        shutil.rmtree(path.parent)
        return undisturbed(self, target)

    monkeypatch.setattr(Path, "rename", removed_first)
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        durable.replace(path, b"content")


def test_a_file_is_synced_with_its_folder_or_not_at_all(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino) or fsync(number))
    path = tmp_path / "run.json"
    durable.replace(path, b"content", is_synced=False)
    assert (path.read_bytes(), synced) == (b"content", [])
    durable.replace(path, b"more")
    assert synced == [path.stat().st_ino, tmp_path.stat().st_ino]
