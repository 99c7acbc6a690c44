"""MLflow's UI: at which port it is served, and what is printed of it."""

import os
import socket
import sys

import pytest

from lockstep.cli import verbs
from lockstep.config.errors import Refused
from lockstep.tracking import address, links, serving


@pytest.fixture
def root(monkeypatch, tmp_path):
    """A root whose name a shell would split; no port is set."""
    folder = tmp_path / "it's 100% mine?"
    (folder / "outputs").mkdir(parents=True)
    monkeypatch.setenv("LOCKSTEP_ROOT", str(folder))
    monkeypatch.delenv("MLFLOW_PORT")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    serving.port.cache_clear()
    yield folder
    serving.port.cache_clear()


@pytest.fixture
def taken(monkeypatch):
    """A port that is taken, the first that is tried."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(serving, "FIRST", listener.getsockname()[1])
        yield serving.FIRST


@pytest.fixture
def became(monkeypatch):
    """The programs that this process would have become."""
    words, opened = [], []
    monkeypatch.setattr(os, "execve", lambda program, argv, environment: words.append(argv))
    open_file = os.open
    monkeypatch.setattr(serving.os, "open", lambda *a: opened.append(open_file(*a)) or opened[-1])
    yield words
    for descriptor in opened:  # the server has ended
        os.close(descriptor)


def test_where_the_port_is_taken_the_next_is_printed_by_commands_and_used(root, taken, became, capsys):
    uri = address.sqlite_uri(root / "outputs" / "mlflow.db")
    link = links.run_link(uri, "1", "abc")
    serving.serve(uri, None, is_default=True)
    port = int(became[0][-1])
    assert port > taken
    assert link == f"http://127.0.0.1:{port}/#/experiments/1/runs/abc?workflowType=machine_learning"
    quiet = ["--registry-store-uri", uri, "--uvicorn-opts", "--log-level warning"]
    expected = ["--backend-store-uri", uri, *quiet, "--host", "127.0.0.1", "--port", str(port)]
    assert became == [[sys.executable, "-m", "mlflow", "ui", *expected]]
    assert capsys.readouterr().out == f"MLflow's UI is served at http://127.0.0.1:{port} until Ctrl-C\n"


def test_while_it_is_served_commands_print_its_port_whichever_was_asked_for(root, became):
    uri = f"sqlite:///{root}/outputs/mlflow.db"
    assert serving.served() is None
    assert links.how_to_open(uri, "there").startswith("make -C ")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving.serve(uri, port, is_default=True)
    serving.port.cache_clear()  # another process
    assert serving.served() == port
    assert links.how_to_open(uri, links.view_link(uri, "7")).startswith(f"open http://127.0.0.1:{port}/#/exp")
    with pytest.raises(Refused, match=f"served already, at http://127.0.0.1:{port}"):
        serving.serve(uri, None, is_default=True)


def test_a_server_that_has_ended_is_not_served(root):
    (root / "outputs" / "ui").write_text("5123")
    assert serving.served() is None


@pytest.mark.parametrize("port", [0, 70_000, None])
def test_a_port_that_cannot_be_had_is_refused(root, taken, became, port):
    with pytest.raises(Refused, match="taken, or no port; by default a free one is chosen"):
        serving.serve("sqlite:///a.db", taken if port is None else port, is_default=True)
    assert became == []
    assert not (root / "outputs" / "ui").exists()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "there is no such store yet; train something first"),
        ("http://me:secret@host", "http://***@host: this server has its own UI, at that address"),
    ],
)
def test_without_a_store_of_ones_own_there_is_nothing_to_serve(root, monkeypatch, capsys, uri, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(sys, "argv", ["lockstep", "ui"])
    with pytest.raises(SystemExit) as ended:
        verbs.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().endswith(said)
