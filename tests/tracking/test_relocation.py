"""A project that was moved or copied: what is noticed, and what `relocate` makes of it."""

import shutil
import sqlite3

import pytest
from helpers.events import epoch
from helpers.records import config, described, start

from lockstep.config.errors import Refused
from lockstep.recovery.journal import Ended
from lockstep.recovery.mending import mend
from lockstep.recovery.run_folder import RunFolder, folder_name, folders, unfinished
from lockstep.tracking import _mlflow_compat
from lockstep.tracking.address import local_path
from lockstep.tracking.relocation import relocate
from lockstep.tracking.store import Store


class Project:
    """A project with a run in the store, and its artifact and model."""

    def __init__(self, root, empty_store):
        self.root = root
        (root / "outputs").mkdir(parents=True)
        shutil.copy(empty_store, root / "outputs" / "mlflow.db")
        store = self.store
        recorded = start(store, config(), "a run")
        self.run_id = recorded.run_id
        store.client.log_artifacts(self.run_id, str(self.file("before.txt")))
        client, experiment_id = store.client, store.experiment_id("tiny")
        self.model_id = client.create_logged_model(experiment_id, "m").model_id
        client.log_model_artifacts(self.model_id, str(self.file("weights")))
        client.create_registered_model("registered")
        source = client.get_logged_model(self.model_id).artifact_location
        client.create_model_version("registered", source, self.run_id)
        custom = client.create_experiment("custom", (root.parent / "custom" / "artifacts").as_uri())
        self.custom = client.create_run(custom).info.run_id

    @property
    def store(self):
        return Store(f"sqlite:///{self.root}/outputs/mlflow.db")

    def file(self, name):
        folder = self.root / "files" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
        return folder

    def artifacts(self):
        """Those of the run, found without MLflow's client, which remembers for each run where they are."""
        folder = local_path(self.store.client.get_run(self.run_id).info.artifact_uri)
        return {path.name for path in folder.glob("*")}


def test_a_store_that_stands_where_it_stood_is_not_moved(tmp_path, empty_store):
    project = Project(tmp_path / "place", empty_store)
    assert (project.store.moved(), relocate(project.store)) == ("", None)
    (tmp_path / "link").symlink_to(project.root)
    assert Store(f"sqlite:///{tmp_path}/link/outputs/mlflow.db").moved() == ""
    shutil.copy(project.root / "outputs" / "mlflow.db", tmp_path / "kept.db")  # a backup, without artifacts
    assert Store(f"sqlite:///{tmp_path}/kept.db").moved() == ""


@pytest.fixture
def project(tmp_path, empty_store):
    return Project(tmp_path / "old place", empty_store)


def by_move(project, tmp_path):
    project.root = project.root.rename(tmp_path / "new #place")


def by_copy(project, tmp_path):
    project.root = shutil.copytree(project.root, tmp_path / "new #place")


def by_move_and_use(project, tmp_path):
    """Moved, then used by a version that did not notice: MLflow made the old folder again."""
    by_move(project, tmp_path)
    client = project.store.client
    project.strayed = client.create_run(client.get_experiment_by_name("tiny").experiment_id).info
    client.log_artifacts(project.strayed.run_id, str(project.file("strayed.txt")))
    assert (tmp_path / "old place").exists()


def test_a_move_is_noticed_before_there_are_artifacts(project, tmp_path):
    shutil.rmtree(project.root / "outputs" / "artifacts")
    by_move(project, tmp_path)
    assert "experiment tiny: its artifacts are expected in" in project.store.moved()
    assert relocate(project.store).locations == 5
    assert project.store.moved() == ""


@pytest.mark.parametrize("how", [by_move, by_copy, by_move_and_use])
def test_a_moved_project_finds_its_artifacts_and_writes_them_beside_its_store(
    project, tmp_path, monkeypatch, how
):
    how(project, tmp_path)
    monkeypatch.setenv("LOCKSTEP_ROOT", str(project.root))
    with pytest.raises(Refused) as caught:
        project.store.experiment_id("tiny")
    old = tmp_path / "old place" / "outputs" / "artifacts"
    assert f"expected in {old}, but this store was moved or copied" in str(caught.value)
    assert "-m lockstep relocate`" in str(caught.value)
    assert str(caught.value) == project.store.moved()
    if how is by_move:
        assert project.artifacts() == set()
    done = relocate(project.store)
    assert done.locations == 5  # the experiment, its run, the model, the model's version twice
    assert project.store.moved() == ""
    assert project.artifacts() == {"before.txt"}
    client, here = project.store.client, project.root / "outputs" / "artifacts"
    after = client.create_run(project.store.experiment_id("tiny"))
    client.log_artifacts(after.info.run_id, str(project.file("after.txt")))
    assert sorted(path.name for path in here.rglob("*.txt")) == ["after.txt", "before.txt"]
    assert client.get_logged_model(project.model_id).artifact_location.startswith(here.as_uri())
    assert client.get_model_version("registered", "1").source.startswith(here.as_uri())
    assert client.get_run(project.custom).info.artifact_uri.startswith((tmp_path / "custom").as_uri())
    if how is by_move_and_use:  # what was written there since is left there, and found
        assert client.get_run(project.strayed.run_id).info.artifact_uri == project.strayed.artifact_uri
    with sqlite3.connect(done.backup) as backup:
        locations = backup.execute("SELECT artifact_uri FROM runs").fetchall()
    assert any("old%20place" in location for (location,) in locations)
    assert relocate(project.store) is None


def test_run_folders_come_along(project, tmp_path, monkeypatch, caplog):
    address = project.store.address
    sweep = described(project.store, config(), "sweep")
    sweep.kind, sweep.sweep_key, sweep.data, sweep.config = "sweep", "key", None, None
    run = described(project.store, config(), "run")
    key = config().run_key(run.data["digest"])
    names = [folder_name("sweep", address, "key"), folder_name("run", address, "tiny", key)]
    run.parent = names[0]
    monkeypatch.setenv("LOCKSTEP_ROOT", str(project.root))
    for name, description in zip([*names, "another's"], [sweep, run, run], strict=True):
        RunFolder(unfinished() / name).create(description)
    killed = RunFolder(unfinished() / names[1])
    killed.journal.append(epoch())
    killed.save(1, b"state")
    killed.artifacts.mkdir()
    (killed.artifacts / "config.yaml").write_text("seed: 0")
    killed.journal.append(Ended(artifacts=killed.artifact_seals()))
    RunFolder(unfinished() / names[0]).owe(b"{}")
    by_move(project, tmp_path)
    monkeypatch.setenv("LOCKSTEP_ROOT", str(project.root))
    relocate(project.store)
    address = project.store.address
    now = [folder_name("sweep", address, "key"), folder_name("run", address, "tiny", key)]
    found = {folder.path.name: folder.read() for folder in folders(unfinished())}
    assert found.keys() == {*now, "another's"}
    assert {description.uri for description in found.values()} == {address}
    assert found[now[1]].parent == now[0]
    assert found[now[1]].run_config("there") == run.run_config("there")
    moved = [RunFolder(unfinished() / name) for name in now]
    mend(moved[1])
    assert caplog.messages == []
    assert (moved[1].history()[0].epochs, moved[1].checkpoint()[1], moved[0].owed()) == (1, b"state", b"{}")
    assert len(list(unfinished().glob("*/"))) == 3


def test_a_store_that_can_not_be_relocated_is_not_changed(project, tmp_path, monkeypatch):
    by_move(project, tmp_path)
    monkeypatch.setenv("LOCKSTEP_ROOT", str(project.root))
    store, file = project.store, project.root / "outputs" / "mlflow.db"
    with sqlite3.connect(file) as database:
        schema = database.execute("SELECT version_num FROM alembic_version").fetchone()[0]
        assert schema in _mlflow_compat.SCHEMAS.split()  # MLflow's newest that is allowed
    with monkeypatch.context() as patch:
        patch.setattr(_mlflow_compat, "SCHEMAS", "another")
        with pytest.raises(Refused, match=f"schema {schema} is not known"):
            relocate(store)
    assert "old place" in store.moved()
    monkeypatch.setattr(store, "uri", "http://host")
    with pytest.raises(Refused, match="not an SQLite file"):
        relocate(store)
