"""Tracking servers that misbehave: a command tells the truth about what they hold.

Exit code 0 only if the server's store, asked directly, holds every run, metric point and artifact, and the
sweep's parent with its members, summary, report and model. Otherwise exit code 1, and the command that the
message names completes it. `make faults` tries all of these servers, `make test` one more.
"""

import shlex
import shutil

import mlflow
import pytest
from helpers import misbehaving
from helpers.clone import Clone
from helpers.configs import LOGREG, job, with_pictures
from helpers.faults import contents
from helpers.misbehaving import Proxy, Rule
from helpers.servers import QuickServer, Server

from lockstep.cli import leftovers
from lockstep.config.launcher_config import LauncherConfig
from lockstep.recovery.run_folder import unfinished
from lockstep.sweep.session import NotUploaded, carry_out
from lockstep.tracking import logged_model, patience, uploader

LEAN = (
    *("-m", "data=digits", "model=logreg", "trainer.epochs=2", "trainer.log_every=10", "optim.lr=0.1,0.01"),
    *("hydra.launcher.n_jobs=1", "tracking.pictures=none"),
)
REPORTED = (*LEAN, "tracking.pictures=best")

OPENED = 6
"""The number of requests by which a command opens a server, and looks for its experiment and runs."""

ARTIFACTS = "PUT .*mlflow-artifacts"
ONE_IN_3 = {"every": 3, "first": OPENED}

SERVERS = {
    "takes 4.5 s for each answer": (LEAN, Rule(misbehaving.slow(4.5), first=3)),
    "drops every third request": (LEAN, Rule(misbehaving.drop, **ONE_IN_3)),
    "carries out and does not answer": (LEAN, Rule(misbehaving.lose_answer, **ONE_IN_3)),
    "resets connections": (LEAN, Rule(misbehaving.reset, **ONE_IN_3)),
    "answers 503 for a while": (LEAN, Rule(misbehaving.says(503), first=OPENED, last=OPENED + 15)),
    "answers 500 from then on": (LEAN, Rule(misbehaving.says(500), first=OPENED + 8)),
    "falls silent": (LEAN, Rule(misbehaving.slow(300), first=OPENED + 8)),
    "answers garbage": (LEAN, Rule(misbehaving.garbage, **ONE_IN_3)),
    "cuts answers": (LEAN, Rule(misbehaving.truncated, **ONE_IN_3)),
    "asks to sign in, with 200": (LEAN, Rule(misbehaving.says(200), **ONE_IN_3)),
    "asks to slow down": (
        LEAN,
        Rule(misbehaving.says(429, "", **{"Retry-After": "1"}), every=2, first=OPENED),
    ),
    "takes no artifacts": (LEAN, Rule(misbehaving.says(500), ARTIFACTS, first=4)),
    "takes artifacts and loses them": (REPORTED, Rule(misbehaving.says(200), ARTIFACTS, every=4)),
    "fails on the members": (LEAN, Rule(misbehaving.says(500), "members.json", last=2)),
    "fails on the members for good": (LEAN, Rule(misbehaving.says(500), "members.json")),
    "fails on the report": (REPORTED, Rule(misbehaving.says(500), "report.html", last=2)),
    "fails on the report for good": (REPORTED, Rule(misbehaving.drop, "report.html")),
    "fails on the model": (LEAN, Rule(misbehaving.lose_answer, "POST .*logged-models", last=3)),
    "fails on the model for good": (LEAN, Rule(misbehaving.says(500), "POST .*logged-models")),
    "fails on the summary": (LEAN, Rule(misbehaving.lose_answer, "log-batch.*best/test", last=2)),
}
SHORT = (  # both in one
    Rule(misbehaving.lose_answer, every=4, first=OPENED),
    Rule(misbehaving.says(200), every=7, first=OPENED),
)


@pytest.fixture(scope="module")
def server(request, tmp_path_factory, empty_store):
    kind = Server if request.config.getoption("--faults") else QuickServer
    server = kind(tmp_path_factory.mktemp("server"))
    shutil.copy(empty_store, server.root / "server.db")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def emptied(server):
    """The server, whose experiment is put away afterwards."""
    yield server
    put_away(server)


def put_away(server):
    client = mlflow.MlflowClient(server.store)
    if (found := client.get_experiment_by_name("digits")) is not None:
        client.rename_experiment(found.experiment_id, f"digits {found.experiment_id}")


_undisturbed = {}


def undisturbed(server, sweep, train):
    """What the store holds after a sweep, if the server behaves; trained once a session."""
    if sweep not in _undisturbed:
        train()
        _undisturbed[sweep] = held(server)
        put_away(server)
    return _undisturbed[sweep]


def held(server):
    """All that the server's store holds, asked directly: its runs, the winner, and the files of its model."""
    client = mlflow.MlflowClient(server.store)
    experiment = client.get_experiment_by_name("digits").experiment_id
    runs = client.search_runs([experiment])
    names = {run.info.run_id: run.info.run_name for run in runs}
    everything = contents(server.store, "digits", served=server.artifacts)
    [parent] = [run for run in runs if run.data.tags["lockstep.kind"] == "sweep"]
    found = client.search_logged_models([experiment])
    models = [
        (names[model.source_run_id], str(model.status), sorted(path.name for path in files_of(server, model)))
        for model in found
    ]
    linked = [run.info.run_name for run in runs if run.outputs and run.outputs.model_outputs]
    winner = names.get(parent.data.tags.get("lockstep.winner"))
    return everything, winner, parent.data.tags.get("mlflow.note.content"), models, linked


def files_of(server, model):
    folder = server.artifacts / model.artifact_location.removeprefix("mlflow-artifacts:/")
    return folder.rglob("*")


@pytest.mark.faults
@pytest.mark.parametrize(("sweep", "rule"), SERVERS.values(), ids=SERVERS.keys())
def test_truth_is_told_of_what_the_server_holds(cold_clone, emptied, tmp_path, sweep, rule):
    def train():
        (tmp_path / "undisturbed").mkdir()
        given = {"MLFLOW_TRACKING_URI": emptied.uri}
        code, _, err = Clone(tmp_path / "undisturbed").quick(*sweep, extra=given)
        assert (code, err) == (0, "")

    want = undisturbed(emptied, sweep, train)
    with Proxy(emptied.uri, rule) as proxy:
        given = {"MLFLOW_TRACKING_URI": proxy.uri}
        code, out, err = cold_clone.quick(*sweep, extra=given, timeout=900)
        assert proxy.spoiled
        assert code in (0, 1), err
        check_said(out, err)
        if code == 0:
            assert held(emptied) == want
        proxy.rules = ()
        for _ in range(3):
            if code == 1:
                code, out, err = follow(cold_clone, sweep, err, given)
                check_said(out, err)
        assert code == 0, err
    assert held(emptied) == want
    assert [path.name for path in (cold_clone.root / "outputs" / "unfinished").iterdir()] == ["claims"]


def check_said(out, err):
    for text in (out, err):
        assert "Traceback" not in text
        assert "<html" not in text


def follow(clone, sweep, err, given):
    """Give the command that a message names."""
    for line in err.splitlines():
        if "-m lockstep deliver" in line:
            words = shlex.split(line[line.index("-m lockstep deliver") :])
            return clone.verb(*words[2:], extra=given)
    assert "same command" in err, err
    return clone.quick(*sweep, extra=given)


def test_truth_is_told_in_short(emptied, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    for module in (patience, uploader):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(logged_model, "log_model", lambda *_: "")  # it takes seconds each time

    def train(uri=emptied.uri, folder=tmp_path / "undisturbed"):
        jobs = [with_pictures(job(uri, f"seed={s}", model=LOGREG, seed=s), "none") for s in (0, 1)]
        carry_out(jobs, ["seed=0,1"], folder=folder, launcher=LauncherConfig(n_jobs=1))

    want = undisturbed(emptied, "short", train)
    with Proxy(emptied.uri, *SHORT) as proxy:
        try:
            train(proxy.uri, tmp_path / "sweep")
            assert held(emptied) == want
        except NotUploaded:
            proxy.rules = ()
            assert leftovers.deliver(unfinished()) == []
        assert len(proxy.spoiled) > 5
    assert held(emptied) == want
    assert [path.name for path in unfinished().iterdir()] == ["claims"]
