"""What earlier commands left and the store refuses: it holds nobody up, and each item says what is wrong."""

import json
import logging
import os
import time
from dataclasses import asdict

import mlflow
import pytest
from helpers.configs import LOGREG, job, quiet
from helpers.events import epoch
from helpers.records import carried_out, recorded, statuses
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_STATE, REQUEST_LIMIT_EXCEEDED
from requests import HTTPError, Response
from sqlalchemy.exc import OperationalError

from lockstep.config.launcher_config import LauncherConfig
from lockstep.config.run_request import RunRequest
from lockstep.data import datasets
from lockstep.recovery import journal
from lockstep.recovery.description import Description
from lockstep.recovery.journal import Ended
from lockstep.recovery.run_folder import RunFolder, folder_name, unfinished
from lockstep.sweep.session import NotUploaded
from lockstep.tracking import uploader as uploader_module
from lockstep.tracking.errors import is_outage, message_of
from lockstep.tracking.pending import upload_pending
from lockstep.tracking.store import Store
from lockstep.tracking.upload import Upload

GONE = {"data": {"name": "arrays", "path": "/nowhere/mine.npz"}}
"""Overrides of a config whose data file was deleted."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(uploader_module, "RETRY_SECONDS", 0.1)


def request_of(uri, seed):
    alone = job(uri, f"seed={seed}", model=LOGREG, seed=seed)
    return RunRequest(quiet(alone.config), alone.overrides)


class Left:
    """Folders that a killed command left behind, named after what is wrong with them."""

    def __init__(self, uri):
        self.store = Store(uri)
        self.config = request_of(uri, 7).config.model_dump(mode="json", exclude={"tracking": {"uri"}})
        self.data = asdict(datasets.load(request_of(uri, 7).config.data).description)

    def add(self, name, experiment="digits", has_data=True, ended=None, **changes):
        """A run with one epoch, RUNNING in the store unless its experiment can't have any."""
        config = self.config | {
            key: self.config[key] | value if isinstance(value, dict) else value
            for key, value in changes.items()
        }
        folder = RunFolder(unfinished() / name)
        folder.create(
            Description(
                *("run", name, ["seed=7"], self.store.address, experiment, config),
                token=name,
                data=self.data if has_data else None,
            )
        )
        folder.journal.append(epoch())
        if ended is not None:
            folder.journal.append(ended)
        return folder

    def start(self, folder):
        """Start its MLflow run, as the command did before it was killed."""
        description = folder.read()
        known = Description(**asdict(description) | {"config": self.config, "data": self.data})
        description.run_id = self.store.start(known, None).run_id
        folder.write(description)
        return description.run_id


def refuse(monkeypatch, name, error):
    """Let the store answer with an error where a run of this name is created."""
    create_run = mlflow.MlflowClient.create_run

    def refusing(client, experiment_id, *args, run_name=None, **kwargs):
        if run_name == name:
            raise error
        return create_run(client, experiment_id, *args, run_name=run_name, **kwargs)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", refusing)
    monkeypatch.setattr(uploader_module, "is_whole", lambda upload: False)  # one by one, as to a server


FORBIDDEN = RestException({"error_code": "PERMISSION_DENIED", "message": "not allowed here"})
WHY = {
    "forbidden": "not allowed here",
    "deleted": "was deleted in this store",
    "unknown": "model.name=transformer",
    "newer": "another version of Lockstep wrote it: colour",
    "later": "its journal can't be read",
}
DAMAGED = {"damaged": "run.json", "torn": "journal"}


def test_leftovers_that_can_not_be_uploaded_hold_nobody_up(uri, monkeypatch, caplog):
    left = Left(uri)
    gone = left.store.client.create_experiment("gone")
    left.store.client.delete_experiment(gone)
    left.add("deleted", "gone")
    left.add("forbidden")
    left.add("unknown", model={"name": "transformer"})
    newer = left.add("newer")
    written = {**asdict(newer.read()), "colour": "blue"}
    (newer.path / "run.json").write_text(json.dumps({**written, "seal": newer._seal(written)}))
    with monkeypatch.context() as patch:
        patch.setattr(journal, "_text", lambda event: b'{"lunch": {}}')
        left.add("later")
    (left.add("damaged").path / "run.json").write_text('{"kind": "ru')
    (left.add("torn").path / "journal").write_bytes(b'{"epoch": {"loss_T": 3}}\n')
    without_data = left.start(left.add("without its data", has_data=False, **GONE))
    good = left.start(left.add("good"))
    started = time.monotonic()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "lockstep"):
        refuse(patch, "forbidden", FORBIDDEN)
        results = carried_out(
            [request_of(uri, 0), request_of(uri, 1)], ["seed=0,1"], launcher=LauncherConfig(n_jobs=1)
        )
    assert time.monotonic() - started < uploader_module.PATIENCE_SECONDS
    assert statuses(results) == [("FINISHED", False)] * 2
    finished = {name: ("FINISHED", None) for name in ("seed=0", "seed=1", "seed, 2 runs")}
    killed = {name: ("KILLED", None) for name in ("without its data", "good")}
    assert recorded(uri) == finished | killed
    found = {name: left.store.find("digits", name) for name in killed}
    assert found == {"without its data": without_data, "good": good}
    for name, why in WHY.items():
        [line] = [entry.message for entry in caplog.records if entry.message.startswith(f"{name}")]
        assert why in line
        assert f"lockstep drop {unfinished() / name}`" in line
    for name, file in DAMAGED.items():
        [line] = [entry.message for entry in caplog.records if entry.message.startswith(name)]
        assert line.endswith(f"it is now {unfinished()}/damaged/{name}/{file}")
    assert len(caplog.records) == len(WHY | DAMAGED)
    assert WHY.keys() | DAMAGED.keys() <= set(os.listdir(unfinished()))

    # All but these are as they were: once the cause is gone, they are uploaded.
    for name in ("later", "newer", "unknown", *DAMAGED):
        RunFolder(unfinished() / name).path.rename(unfinished().parent / name)
    left.store.client.restore_experiment(gone)
    assert upload_pending(unfinished()) == []
    assert recorded(uri)["forbidden"] == ("KILLED", None)
    assert left.store.find("gone", "deleted") is not None


def test_a_commands_own_run_that_is_refused_ends_it_at_once_with_the_reason(uri, monkeypatch, caplog):
    started = time.monotonic()
    refuse(monkeypatch, "seed=0", FORBIDDEN)
    with pytest.raises(NotUploaded, match="the store says: PERMISSION_DENIED: not allowed here"):
        carried_out([request_of(uri, 0), request_of(uri, 1)], ["seed=0,1"], launcher=LauncherConfig(n_jobs=1))
    assert time.monotonic() - started < uploader_module.PATIENCE_SECONDS
    assert recorded(uri) == {name: ("FINISHED", None) for name in ("seed=1", "seed, 2 runs")}
    assert [entry.message for entry in caplog.records if entry.levelno == logging.ERROR] == [
        "seed=0: the store rejects it: PERMISSION_DENIED: not allowed here"
    ]


def test_what_is_meant_for_a_store_that_is_gone_stays_and_no_store_is_made(uri, tmp_path):
    folder = Left(uri).add("elsewhere")
    description = folder.read()
    description.uri = f"sqlite:///{tmp_path}/gone/mlflow.db"
    folder.write(description)
    [line] = upload_pending(unfinished())
    assert line.startswith(f"{description.uri}: there is no such store")
    assert not (tmp_path / "gone").exists()
    assert folder.exists()


def test_an_item_that_always_fails_as_a_server_does_lets_the_others_pass(uri, monkeypatch, caplog):
    left = Left(uri)
    for number in range(4):
        left.add(f"good {number}", ended=Ended())
    left.add("bad", ended=Ended())
    started = time.monotonic()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "lockstep"):
        refuse(patch, "bad", MlflowException("our fault"))  # INTERNAL_ERROR
        results = carried_out([request_of(uri, 0)], ["seed=0"], launcher=LauncherConfig(n_jobs=1))
    assert time.monotonic() - started < uploader_module.PATIENCE_SECONDS
    assert statuses(results) == [("FINISHED", False)]
    assert recorded(uri) == {
        name: ("FINISHED", None)
        for name in ("logreg", "logreg, 1 run", "good 0", "good 1", "good 2", "good 3")
    }
    assert "bad (bad): not uploaded: our fault" in caplog.text


def answered(status):
    """What MLflow's client raises where a server, or a proxy, answers an artifact's upload so."""
    response = Response()
    response.status_code, response.reason = status, "Sorry"
    return HTTPError(f"{status} Sorry for url: u. Response text: <html>no</html>", response=response)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError("nobody is there"), True),
        (TimeoutError(), True),
        (OSError(28, "No space left on device"), True),
        (OperationalError("BEGIN", None, Exception("database is locked")), True),
        (MlflowException("API request failed with exception: refused"), True),
        (MlflowException("slow down", error_code=REQUEST_LIMIT_EXCEEDED), True),
        (FORBIDDEN, False),
        (MlflowException("value too long", error_code=BAD_REQUEST), False),
        (MlflowException("deleted", error_code=INVALID_STATE), False),
        (FileNotFoundError("artifacts"), False),
        (answered(503), True),
        (answered(429), True),
        (answered(403), False),
        (answered(413), False),
        (ValueError("a bug"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_stores_errors_and_an_items_own_are_told_apart(error, expected):
    assert is_outage(error) == expected


def test_a_refused_upload_is_tried_later_each_time_and_one_of_an_outage_is_not(tmp_path):
    upload = Upload(RunFolder(tmp_path), Description("run", "a", [], "", ""), is_new=True)

    def waits(error, n):
        for _ in range(n):
            upload.fail(error, is_its_own=not is_outage(error), retry_seconds=2.0)
            yield round(upload.retry_at - time.monotonic())

    assert list(waits(FORBIDDEN, 7)) == [4, 8, 16, 32, 64, 64, 64]
    assert (upload.is_refused, upload.trouble) == (True, "PERMISSION_DENIED: not allowed here")
    assert list(waits(ConnectionError("http://me:secret@host is gone\nat all"), 3)) == [2, 2, 2]
    assert (upload.is_refused, upload.trouble) == (False, "http://***@host is gone")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError(), "ConnectionError()"),
        (answered(413), "413 Sorry for url: u"),
        (
            MlflowException("failed with error code 502 != 200. Response body: '<html>\nno</html>'"),
            "502 != 200",
        ),
        (MlflowException("failed with error code 502 != 200. Response body: ''"), "502 != 200"),
        (MlflowException("no JSON: \x00\x1b[31m\x7f"), "no JSON: ??[31m?"),
        (
            MlflowException("(raised as a result of Query-invoked autoflush; no)\nno such table"),
            "no such table",
        ),
        (MlflowException("x" * 10_000), "x" * 300),
    ],
    ids=range(7),
)
def test_a_stores_message_is_one_line_of_text(error, said):
    assert message_of(error).removeprefix("failed with error code ") == said


def test_a_commands_own_folder_that_can_not_be_read_is_trained_anew(uri, caplog):
    left = Left(uri)
    request = request_of(uri, 0)
    key = request.config.run_key(left.data["digest"])
    name = folder_name("run", left.store.address, "digits", key)
    left.add(name, model={"name": "transformer"})
    assert statuses(carried_out([request], ["seed=0"], launcher=LauncherConfig(n_jobs=1))) == [
        ("FINISHED", False)
    ]
    assert recorded(uri) == {name: ("FINISHED", None) for name in ("logreg", "logreg, 1 run")}
    assert (unfinished() / name).exists()
    assert f"lockstep drop {unfinished() / name}`" in caplog.text
