import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import forked
import pytest

from lockstep.opening import open_store

REPOSITORY = Path(__file__).resolve().parents[1]


class Clone:
    """A working copy of its own: run.py as a real process, with its own outputs."""

    def __init__(self, root, store=None):
        self.root = root
        if store is not None:
            (root / "outputs").mkdir()
            shutil.copy(store, root / "outputs" / "mlflow.db")
        self.processes = []
        shutil.copy(REPOSITORY / "run.py", root)
        for folder in ("conf", "src"):
            (root / folder).symlink_to(REPOSITORY / folder)

    @property
    def store(self):
        return f"sqlite:///{self.root}/outputs/mlflow.db"

    def start(self, *arguments, extra=(), **options):
        """A command; `extra` is added to its environment."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= dict(extra)
        process = subprocess.Popen(
            [sys.executable, str(self.root / "run.py"), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **{"stdout": subprocess.PIPE, **options},
        )
        self.processes.append(process)
        return process

    def run(self, *arguments, **options):
        """Exit code, standard output, standard error."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def quick(self, *arguments):
        """As `run`, in a process that is forked, not started."""
        return self._forked(str(self.root / "run.py"), *arguments)

    def verb(self, *arguments):
        """`python -m lockstep`, in the clone, likewise."""
        return self._forked("-m", "lockstep", *arguments)

    def _forked(self, *words):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        done = forked.run(words, self.root, environment)
        return done.returncode, done.stdout, done.stderr


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
    parser.addoption("--kills", type=int, default=6, help="how often a sweep is killed in test_faults.py")
    parser.addoption("--faults", action="store_true", help="also the tests of faults that take minutes")


def pytest_collection_modifyitems(config, items):
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
