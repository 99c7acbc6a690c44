"""Runs found by the start of their id."""

from types import SimpleNamespace

import pytest

from lockstep.config.errors import Refused
from lockstep.tracking.ids import resolve
from lockstep.tracking.store import Store


@pytest.fixture(scope="module")
def store(empty_store, tmp_path_factory):
    """A store with six runs of two experiments, one of them deleted."""
    path = tmp_path_factory.mktemp("ids") / "mlflow.db"
    path.write_bytes(empty_store.read_bytes())
    store = Store(f"sqlite:///{path}")
    for name in ("a", "b"):
        for index in range(3):
            store.client.create_run(store.experiment_id(name), run_name=f"{name}{index}")
    return store


def runs_of(store):
    return {run.info.run_id: run.info.run_name for run in store.search(["1", "2"], "")}


def test_a_start_that_one_run_has_is_enough(store):
    for run_id in runs_of(store):
        assert resolve(store, run_id[:8]) == resolve(store, run_id) == run_id


def test_a_start_that_several_runs_have_is_refused_with_their_names(store, monkeypatch):
    named = [SimpleNamespace(info=SimpleNamespace(run_id=f"ab{i}", run_name=f"run {i}")) for i in range(7)]
    monkeypatch.setattr(store, "search", lambda ids, text: named if "LIKE 'ab%'" in text else [])
    with pytest.raises(Refused) as caught:
        resolve(store, "ab")
    lines = str(caught.value).splitlines()
    assert lines[0] == "ab: 7 runs have ids that start so; give more of one"
    assert lines[1:] == [f"  ab{index}  run {index}" for index in range(5)] + ["  and 2 more"]


@pytest.mark.parametrize("start", ["", "xyz", "a' OR '1'='1", "0" * 33, "ABC"])
def test_what_cannot_start_an_id_is_refused(store, start):
    with pytest.raises(Refused, match="no run id, nor the start of one"):
        resolve(store, start)


def test_an_id_that_no_run_has_or_a_deleted_one_is_refused(store):
    deleted = next(run_id for run_id, name in runs_of(store).items() if name == "a0")
    store.client.delete_run(deleted)
    with pytest.raises(Refused, match=f"^{deleted[:8]}: no run in sqlite:.*mlflow.db has an id"):
        resolve(store, deleted[:8])
