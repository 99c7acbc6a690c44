"""Addresses as they are pasted, and commands as they are printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import mlflow.cli
import pytest
from helpers.clone import REPOSITORY

from lockstep.config.errors import Refused, without_password
from lockstep.tracking import address, links
from lockstep.tracking.store import Store

ODD = [
    "my project",
    'it\'s "$HOME"',
    "50%25",
    "100%",
    "my%20project",
    "what?",
    "a=b?c=d",
    "a#b",
    "a&b;c",
    "ä",
]
"""Names of folders."""


@pytest.mark.parametrize("page", ["/#/experiments/1/runs", "/?searchFilter=x", "?a#b"])
def test_a_servers_page_is_refused_with_the_servers_address(page):
    with pytest.raises(Refused, match=r"has no \? and no #; give http://127.0.0.1:9/base\n"):
        Store(f"http://127.0.0.1:9/base{page}")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:pa'ss w\"rd@host:5000/x", "http://***@host:5000/x"),
        ("http://host/me@work", "http://host/me@work"),
        (
            "postgresql://me:pa'ss w\"r/d?#@host/db?sslmode=require",
            "postgresql://***@host/db?sslmode=require",
        ),
        ("postgresql+psycopg2://me@host/db", "postgresql+psycopg2://***@host/db"),
        ("postgresql://host/db?password=x@y&sslmode=no", "postgresql://host/db?password=***&sslmode=no"),
        ("postgresql://host/db?p%61ssword=x", "postgresql://host/db?p%61ssword=***"),
        ("mysql://host/db?user=a@b&passwd=x", "mysql://host/db?user=a@b&passwd=***"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dx", "mssql+pyodbc:///?odbc_connect=***"),
        ("sqlite:////home/me:x@work/a.db?timeout=20", "sqlite:////home/me:x@work/a.db?timeout=20"),
        ("databricks", "databricks"),
    ],
)
def test_what_is_secret_in_an_address_is_not_shown(uri, shown):
    address.check_user_info(uri)
    assert address.without_secrets(uri) == address.without_secrets(shown) == shown


@pytest.mark.parametrize(
    "uri",
    ["http://me:s3c/r@et@host", "http://me:s3c?r@host", "http://me:s3c#@h", "mysql://me:s3c@ret@host/db"],
)
def test_a_password_whose_parts_would_be_taken_for_a_host_is_refused_without_showing_them(uri):
    with pytest.raises(Refused, match="must be percent-encoded") as caught:
        Store(uri)
    assert re.findall("s3c|ret|/r", str(caught.value)) == []
    assert str(caught.value).startswith(f"tracking.uri={uri.partition(':')[0]}://***@h")


@pytest.mark.parametrize("password", ["pa'ss", 'pa"ss', "pa ss", "p?a&s=s", "pa%20ss"])
@pytest.mark.parametrize("uri", ["http://me:{}@127.0.0.1:9", "postgresql://me:{}@127.0.0.1:9/db"])
def test_no_password_is_in_what_is_said_of_a_store_that_does_not_answer(uri, password):
    if uri.startswith("http"):
        password = password.replace("?", "%3F")
    with pytest.raises(Refused) as caught:
        Store(uri.format(password))
    for text in (password, unquote(password), quote(password), "me:"):
        assert text not in without_password(str(caught.value))


@pytest.mark.parametrize("name", ODD)
def test_a_store_may_be_in_any_folder_and_its_address_may_be_a_path_or_encoded(tmp_path, name, empty_store):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    for uri in (
        f"sqlite:///{folder}/mlflow.db",
        f"sqlite:///{folder}/mlflow.db?timeout=20",
        f"sqlite:///{folder.as_uri().removeprefix('file://')}/mlflow.db",
    ):
        assert address.sqlite_path(uri) == folder / "mlflow.db"
    store = Store(uri)
    assert Store(store.address).address == store.address
    run = store.client.create_run(store.experiment_id("tiny"))
    store.client.log_text(run.info.run_id, "written", "a.txt")
    [path] = tmp_path.rglob("a.txt")
    assert path.is_relative_to(folder / "artifacts")
    # MLflow itself makes an empty folder where a name has a percent sign.
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()} == {name}


def test_an_address_of_ordinary_characters_is_its_path(tmp_path):
    for name in ("a", "my project", "a#b", "ä", "it's"):
        path = tmp_path / name / "mlflow.db"
        assert address.sqlite_uri(path) == f"sqlite:///{path}"  # what names folders of unfinished runs
    # Nothing is there that could decide: as SQLAlchemy has it.
    assert address.sqlite_path("sqlite:////nowhere/my%20project/a.db") == Path("/nowhere/my project/a.db")


@pytest.mark.parametrize("name", ODD)
def test_commands_can_be_pasted_wherever_the_project_lies(tmp_path, name, monkeypatch):
    root = tmp_path / name
    (root / ".venv").mkdir(parents=True)
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        (root / file).symlink_to(REPOSITORY / file)
    (root / ".venv" / ".installed").touch()
    monkeypatch.setenv("LOCKSTEP_ROOT", str(root))
    command = links.how_to_open(f"sqlite:///{root}/outputs/mlflow.db", "there").removesuffix(
        ", then open there"
    )
    words = shlex.split(command)
    assert words == ["make", "-C", str(root), "ui"]
    made = subprocess.run([*words, "--dry-run", "PORT=5001"], capture_output=True, text=True)
    assert ".venv/bin/python -m lockstep ui --port 5001" in made.stdout.splitlines()
    other = links.how_to_open(f"sqlite:///{root}/other.db", "there").removesuffix(", then open there")
    assert shlex.split(other)[-3] == address.sqlite_uri(root / "other.db")
    words = shlex.split(links.verb("drop", root / "a"))
    assert words == [sys.executable, "-m", "lockstep", "drop", f"{root}/a"]


def test_restoring_an_experiment_as_it_is_printed_acts_on_this_store(tmp_path, empty_store, monkeypatch):
    (tmp_path / "my project.db").write_bytes(empty_store.read_bytes())
    monkeypatch.chdir(tmp_path)
    store = Store("sqlite:///my project.db")
    store.client.delete_experiment(store.experiment_id("gone"))

    def printed():
        with pytest.raises(Refused) as caught:
            store.experiment_id("gone")
        return str(caught.value).split("`")[1]

    setting, *words = shlex.split(printed())
    assert words[:3] == [sys.executable, "-m", "mlflow"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.address)
    assert shlex.split(printed()) == words
    assert setting == f"MLFLOW_TRACKING_URI={store.address}"
    monkeypatch.chdir("/")
    mlflow.cli.cli(words[3:], standalone_mode=False)
    assert store.experiment_id("gone") == words[-1]
