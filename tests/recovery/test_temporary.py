"""Temporary folders of processes that live and that were killed."""

import subprocess
import sys
import tempfile

import pytest

from lockstep.recovery.temporary import temporary_folder

HOLDER = """
import sys
from lockstep.recovery.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holders(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", HOLDER], **pipes) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_a_killed_processs_folder_is_removed_by_the_next_process(tmp_path, holders):
    (tmp_path / "lockstep-temporary-file").touch()
    living, killed = holders
    folders = [process.stdout.readline().strip() for process in holders]
    killed.kill()
    killed.wait()
    with temporary_folder() as mine:
        assert {str(path) for path in tmp_path.iterdir()} > {str(mine), *folders}
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {folders[0].rpartition("/")[2], "lockstep-temporary-file"}
    living.communicate("\n")
    assert [path.name for path in tmp_path.iterdir()] == ["lockstep-temporary-file"]
