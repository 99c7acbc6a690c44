"""Damaged state on disk: set aside with one line, trained again from what is whole, and never believed."""

import random
import shutil

import mlflow
import pytest
from helpers.configs import LOGREG, job, with_pictures
from helpers.faults import contents
from helpers.records import carried_out

from lockstep.config.launcher_config import LauncherConfig
from lockstep.recovery.mending import DAMAGED
from lockstep.recovery.run_folder import unfinished
from lockstep.sweep import session
from lockstep.sweep.ledger import Ledger


def sweep(uri):
    settings = {"model": LOGREG, "checkpoint_seconds": 0.0}
    jobs = [job(uri, f"seed={s}", seed=s, epochs=e, **settings) for s, e in enumerate((1, 6, 6))]
    return [with_pictures(request, "none") for request in jobs]


class Interrupted:
    """A sweep as a kill leaves it after four epochs: one run has ended, none is FINISHED in the store."""

    def __init__(self, root, monkeypatch):
        self.root, self.uri = root, f"sqlite:///{root}/mlflow.db"
        receive = Ledger.receive

        def interrupting(ledger, number, event):
            receive(ledger, number, event)
            if ledger._entries[1].history.epochs == 4:
                raise KeyboardInterrupt

        def refusing(*_):
            raise OSError("nothing ends")

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "receive", interrupting)
            patch.setattr(session, "CLOSING_SECONDS", 0.5)
            patch.setattr(mlflow.MlflowClient, "set_terminated", refusing)
            with pytest.raises(KeyboardInterrupt):
                carried_out(sweep(self.uri), ["..."], launcher=LauncherConfig(n_jobs=1))
        shutil.copytree(root, root.with_name("kept"))

    def restore(self):
        shutil.rmtree(self.root / "outputs")
        shutil.copytree(self.root.with_name("kept"), self.root, dirs_exist_ok=True)

    @property
    def files(self):
        """Its state: each file of a run or the parent."""
        files = [path for path in unfinished().glob("*/**/*") if path.is_file()]
        return sorted(path for path in files if path.name != "trouble")

    def resumes(self):
        """Give the same command again; return what the store holds then."""
        runs = carried_out(sweep(self.uri), ["..."], launcher=LauncherConfig(n_jobs=1))
        assert [(run.status, run.reason) for run in runs] == [("FINISHED", "")] * 3
        left = {path.name for path in unfinished().iterdir()} - {"claims", DAMAGED}
        assert left == set()
        return contents(self.uri, "digits")


@pytest.fixture
def interrupted(tmp_path, monkeypatch, empty_store):
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.setenv("LOCKSTEP_ROOT", str(root))
    shutil.copy(empty_store, root / "mlflow.db")
    return Interrupted(root, monkeypatch)


def damage(path, other, how, rng):
    """Damage a file in one of these ways; `other` is one of the same kind."""
    content = path.read_bytes()
    at = rng.randrange(len(content))
    if how == "halved":
        path.write_bytes(content[: at // 2])
    elif how == "lost":
        path.unlink()
    elif how == "swapped":
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif how == "garbage":
        path.write_bytes(rng.randbytes(len(content)))
    else:
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :])


HOW = ("halved", "lost", "swapped", "garbage", "changed")


@pytest.mark.parametrize("cases", [14, pytest.param(100, marks=pytest.mark.faults)])
def test_damaged_files_change_no_number(interrupted, caplog, cases):
    whole = interrupted.resumes()
    assert caplog.messages == []
    rng = random.Random(0)
    for case in range(cases):
        interrupted.restore()
        files = interrupted.files
        path, how = files[case % len(files)], HOW[(case + case // len(files)) % len(HOW)]
        others = [file for file in files if file != path]
        alike = [file for file in others if file.suffix == path.suffix]
        damage(path, rng.choice(alike or others), how, rng)
        caplog.clear()
        assert interrupted.resumes() == whole, (path, how)
        if how not in ("lost", "halved"):  # these may be what a kill leaves
            assert len(caplog.messages) >= 1, (path, how)
            assert all(str(unfinished() / DAMAGED) in said for said in caplog.messages), (path, how)
