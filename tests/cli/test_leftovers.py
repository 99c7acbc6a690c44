"""`python -m lockstep status`, `drop` and `relocate`, in this process."""

import sys

import pytest
from helpers.events import epoch
from helpers.holders import end, holder
from helpers.records import config, described, start

from lockstep.cli import verbs
from lockstep.recovery.description import Description
from lockstep.recovery.journal import Ended
from lockstep.recovery.run_folder import RunFolder, unfinished
from lockstep.tracking.store import Store


@pytest.fixture
def lockstep(monkeypatch, capsys):
    """`python -m lockstep <words>`: exit code, output, errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lockstep", *words])
        try:
            code = verbs.main()
        except SystemExit as ended:
            code = ended.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def store(uri):
    return Store(uri)


def left(store, name, *events, **changes):
    """A run folder that a killed command left."""
    description = described(store, config(), f"run {name}", token=name)
    for key, value in changes.items():
        setattr(description, key, value)
    folder = RunFolder(unfinished() / name)
    folder.create(description)
    for event in events:
        folder.journal.append(event)
    return folder


def test_status_lists_what_is_left_why_and_who_works_on_it(store, lockstep):
    assert lockstep("status") == (0, "nothing is unfinished, all is in the store\n", "")
    left(store, "a", epoch())
    left(store, "b", epoch(), Ended("OSError: no room")).note_trouble("PERMISSION_DENIED: not yours")
    (left(store, "c").path / "run.json").write_text("{")
    RunFolder(unfinished() / "d").create(Description("sweep", "[bold]", [], "http://host", "tiny"))
    process, taken = holder(unfinished() / "claims", "a")
    assert taken == ["True"]
    code, out, err = lockstep("status")
    end(process)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["a", "b", "c", "d"]
    where = f"experiment tiny in {store.address}"
    assert lines[1:4] == [
        f"  run a, {where}",
        "  run, 1 of 2 epochs; the same command resumes it",
        f"  process {process.pid} works on it",
    ]
    assert lines[5:8] == [
        f"  run b, {where}",
        "  run, FAILED; not uploaded yet",
        "  could not be uploaded: PERMISSION_DENIED: not yours",
    ]
    assert lines[9].startswith("  run.json can't be read: ")
    assert lines[11:] == [
        "  [bold], experiment tiny in http://host",
        "  sweep, not finished; the same command resumes it",
    ]


def test_drop_abandons_a_run_and_kills_its_mlflow_run(store, lockstep):
    by_id, by_token = (start(store, config(), name, token=name).run_id for name in ("a", "b"))
    ended = start(store, config(), "c", token="c")
    ended.end("FINISHED")
    left(store, "a", run_id=by_id)
    folders = [left(store, name) for name in ("b", "c", "d")]
    (left(store, "e").path / "run.json").write_text("{")
    left(store, "f", uri=f"sqlite:///{unfinished()}/nowhere.db")
    process, _ = holder(unfinished() / "claims", "a")
    code, out, err = lockstep("drop", "a")
    assert (code, out) == (2, "")
    assert f"process {process.pid} works on it" in err
    end(process)
    said = {
        "a": "",
        str(folders[0].path): "",
        "c": "",
        "d": "",
        "e": "its MLflow run could not be set to KILLED: run.json can't be read",
        "f": "its MLflow run could not be set to KILLED: sqlite:///",
    }
    for name, expected in said.items():
        code, out, err = lockstep("drop", name)
        assert (code, out) == (0, f"dropped {unfinished() / name.rpartition('/')[2]}\n")
        assert err.startswith(expected) and bool(err) == bool(expected)
    assert {path.name for path in unfinished().iterdir()} == {"claims"}
    runs = map(store.client.get_run, (by_id, by_token, ended.run_id))
    assert [run.info.status for run in runs] == ["KILLED", "KILLED", "FINISHED"]
    code, out, err = lockstep("drop", "a")
    assert (code, out) == (2, "")
    assert f"a: no run folder in {unfinished()}" in err
