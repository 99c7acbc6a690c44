import logging
import os
import shutil

import hypothesis  # noqa: F401 - by now: once a test has frozen the collector's objects, trio's hook warns
import pytest
from helpers import forked
from helpers.clone import Clone

# torch and MLflow are imported where they are needed: the process that hands out the tests needs neither.

os.environ["MLFLOW_PORT"] = "5000"  # in links, whatever else is served on this machine


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests run beside each other: with several threads each, most of their time would be spent waiting for a
    core (test_array.py took six times as long on 2 cores). What trains with several threads asks for them.
    """
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def root_level():
    """Hydra sets the root logger's level, by `--info` and in its own suite: not for the next test."""
    before = logging.root.level
    yield
    logging.root.setLevel(before)


@pytest.fixture(autouse=True, scope="module")
def tracking_uri():
    """What mlflow.set_tracking_uri sets, in the environment, too, is not for the next test file."""
    import mlflow

    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture
def make_clone(tmp_path):
    made = []

    def make(store=None):
        root = tmp_path / f"clone-{len(made)}"
        root.mkdir()
        made.append(Clone(root, store))
        return made[-1]

    yield make
    for process in [process for clone in made for process in clone.processes]:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An SQLite store without runs, to be copied: MLflow takes a second or two to make one."""
    from lockstep.tracking.opening import open_store

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def clone(make_clone, empty_store):
    """One that has a store, without runs."""
    return make_clone(empty_store)


@pytest.fixture
def cold_clone(make_clone):
    """One that has no outputs."""
    return make_clone()


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=50, help="how often `make faults` kills")
    parser.addoption("--faults", action="store_true", help="also the tests of faults that take minutes")


def pytest_configure(config):
    if config.getoption("numprocesses", None) not in (None, 0, 1) and not hasattr(config, "workerinput"):
        forked.start_server()  # for all workers


LONGEST = [
    "tests/test_types.py",
    "recovery/test_faults.py",
    "cli/test_command.py",
    "execution/test_cluster.py",
    "test_docs.py",
    "report/test_browser.py",
    "search/test_session.py",
    "search/test_trials.py",
    "test_api_faults.py",
    "hydra_plugins/test_next.py",
]
"""Files that take more than a minute: started first, so that none is left when the others have ended."""


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: not item.path.as_posix().endswith(tuple(LONGEST)))
    if not config.getoption("--faults"):
        for item in items:
            if item.get_closest_marker("faults"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make faults"))


@pytest.fixture
def kills(request):
    return request.config.getoption("--kills")


@pytest.fixture
def uri(tmp_path, monkeypatch, empty_store):
    """Of a store in a root folder of its own."""
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"
