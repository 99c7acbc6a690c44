"""Tracking servers that misbehave: a command tells the truth about what they hold.

Exit code 0 only if the server's store, asked directly, holds every run, metric point and artifact, and the
sweep's parent with its members, summary, report and model. Otherwise exit code 1, and the command that the
message names completes it.
"""

import shlex

import mlflow
import pytest
from helpers import misbehaving
from helpers.faults import contents
from helpers.misbehaving import Proxy, Rule
from helpers.servers import Server

SWEEP = (
    *("-m", "data=digits", "model=logreg", "trainer.epochs=2", "trainer.log_every=10"),
    *("optim.lr=0.1,0.01,0.001", "hydra.launcher.n_jobs=1"),
)
THEN = 12
"""Requests that the faults leave alone: those by which a command opens a server and looks for its runs."""

ARTIFACTS = "PUT .*mlflow-artifacts"

SERVERS = {
    "takes 4.5 s for each answer": [Rule(misbehaving.slow(4.5), first=3)],
    "drops every third request": [Rule(misbehaving.drop, every=3, first=THEN)],
    "carries out and does not answer": [Rule(misbehaving.lose_answer, every=3, first=THEN)],
    "resets connections": [Rule(misbehaving.reset, every=3, first=THEN)],
    "answers 503 for a while": [Rule(misbehaving.says(503), first=THEN, last=THEN + 15)],
    "answers 500 from then on": [Rule(misbehaving.says(500), first=THEN + 8)],
    "answers garbage": [Rule(misbehaving.garbage, every=3, first=THEN)],
    "cuts answers": [Rule(misbehaving.truncated, every=3, first=THEN)],
    "asks to sign in, with 200": [Rule(misbehaving.says(200), every=3, first=THEN)],
    "asks to slow down": [Rule(misbehaving.says(429, "", **{"Retry-After": "1"}), every=2, first=THEN)],
    "takes no artifacts": [Rule(misbehaving.says(500), ARTIFACTS, first=4)],
    "takes artifacts and loses them": [Rule(misbehaving.says(200), ARTIFACTS, every=4)],
    "fails on the list of members": [Rule(misbehaving.says(500), "members.json", last=4)],
    "fails on the report": [Rule(misbehaving.says(500), "report.html", last=4)],
    "fails on the model": [Rule(misbehaving.says(500), "logged-models", last=4)],
    "fails on the summary": [Rule(misbehaving.drop, "runs/(set-tag|log-batch)", every=2, first=9)],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


def held(server):
    """All that the server's store holds, asked directly: its runs, the winner, and the files of its model."""
    client = mlflow.MlflowClient(server.store)
    experiment = client.get_experiment_by_name("digits").experiment_id
    runs = client.search_runs([experiment])
    names = {run.info.run_id: run.info.run_name for run in runs}
    [parent] = [run for run in runs if run.data.tags["lockstep.kind"] == "sweep"]
    models = [
        (
            names[model.source_run_id],
            str(model.status),
            sorted(path.name for path in _folder(server, model.artifact_location).rglob("*")),
        )
        for model in client.search_logged_models([experiment])
    ]
    told = {key: parent.data.tags.get(key) for key in ("lockstep.winner", "mlflow.note.content")}
    return {
        "runs": contents(server.store, "digits", served=server.artifacts),
        "winner": names.get(told["lockstep.winner"]),
        "says": told["mlflow.note.content"],
        "models": models,
        "linked": [names[run.info.run_id] for run in runs if run.outputs and run.outputs.model_outputs],
    }


def _folder(server, location):
    return server.artifacts / location.removeprefix("mlflow-artifacts:/")


@pytest.fixture
def emptied(server):
    """The server, which shows no experiment of another test."""
    yield server
    client = mlflow.MlflowClient(server.store)
    if (found := client.get_experiment_by_name("digits")) is not None:
        client.rename_experiment(found.experiment_id, f"digits {found.experiment_id}")


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    """What the store holds after the sweep, if the server behaves."""
    from helpers.clone import Clone

    clone = Clone(tmp_path_factory.mktemp("undisturbed"))
    code, _, err = clone.quick(*SWEEP, extra={"MLFLOW_TRACKING_URI": server.uri})
    assert (code, err) == (0, "")
    everything = held(server)
    client = mlflow.MlflowClient(server.store)
    client.rename_experiment(client.get_experiment_by_name("digits").experiment_id, "undisturbed")
    return everything


@pytest.mark.parametrize(
    "rules", [pytest.param(r, id=k, marks=pytest.mark.faults) for k, r in SERVERS.items()]
)
def test_truth_is_told_of_what_the_server_holds(cold_clone, emptied, undisturbed, rules):
    with Proxy(emptied.uri, *rules) as proxy:
        given = {"MLFLOW_TRACKING_URI": proxy.uri}
        code, out, err = cold_clone.quick(*SWEEP, extra=given)
        assert proxy.spoiled
        check_said(out, err)
        if code == 0:
            assert held(emptied) == undisturbed
        assert code in (0, 1), err
        proxy.rules = ()
        for _ in range(3):
            if code == 0:
                break
            code, out, err = follow(cold_clone, err, given)
            check_said(out, err)
        assert code == 0, err
    assert held(emptied) == undisturbed
    assert [path.name for path in (cold_clone.root / "outputs" / "unfinished").iterdir()] == ["claims"]


def check_said(out, err):
    for text in (out, err):
        assert "Traceback" not in text
        assert "<html" not in text


def follow(clone, err, given):
    """Give the command that a message names."""
    for line in err.splitlines():
        if "-m lockstep deliver" in line:
            words = shlex.split(line[line.index("-m lockstep deliver") :])
            return clone.verb(*words[2:], extra=given)
    assert "same command" in err, err
    return clone.quick(*SWEEP, extra=given)
