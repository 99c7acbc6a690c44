"""The plugins as Hydra sees them; what they make of real sweeps, test_command.py asks real processes."""

import subprocess
import sys

import hydra
import pytest
from helpers.clone import REPOSITORY
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, LauncherTestSuite
from hydra.version import VersionBase
from packaging.version import Version


def test_hydra_discovers_the_plugins():
    found = {plugin.__name__ for kind in (Launcher, Sweeper) for plugin in Plugins.instance().discover(kind)}
    assert {"LockstepLauncher", "LockstepSweeper", "LockstepSearch"} <= found


@pytest.fixture
def version_base_of_old(monkeypatch):
    """What Hydra 1.3's suites expect, unless another test has called for something newer."""
    if hydra.__version__.startswith("1.3."):
        monkeypatch.setattr(VersionBase.instance(), "version_base", Version("1.1"))


OLD = pytest.mark.filterwarnings(
    "ignore:(?s).*(Future Hydra versions|version_base parameter|Support for .yml)"
)

# Hydra's own suites bring task functions of their own: they hold the launcher to how jobs are composed,
# numbered, given their folders and returned.


@OLD
@pytest.mark.usefixtures("version_base_of_old")
@pytest.mark.parametrize(
    ("launcher_name", "overrides"), [("lockstep", []), ("lockstep", ["hydra/sweeper=lockstep"])]
)
class TestHydrasSuite(LauncherTestSuite):
    pass


@OLD
@pytest.mark.usefixtures("version_base_of_old")
@pytest.mark.parametrize(
    ("launcher_name", "overrides"),
    [("lockstep", ["hydra/sweeper=lockstep", "hydra.sweeper.max_batch_size=2"])],
)
class TestHydrasSuiteOfBatches(BatchedSweeperTestSuite):
    pass


@OLD
def test_batches_after_one_with_a_failure_run_too(hydra_sweep_runner, tmpdir):
    ran = []

    def task(config):
        ran.append(config.seed)
        if config.seed == 1:
            raise ValueError("seed 1 is bad")
        return config.seed

    runner = hydra_sweep_runner(
        calling_file=None,
        calling_module="hydra.test_utils.a_module",
        config_path=None,
        config_name=None,
        task_function=task,
        overrides=[
            *("hydra/launcher=lockstep", "hydra/sweeper=lockstep", "hydra.sweeper.max_batch_size=2"),
            "+seed=range(0,5)",
        ],
        temp_dir=tmpdir,
    )
    with pytest.raises(ValueError, match="seed 1 is bad"), runner:
        pass
    assert ran == [0, 1, 2, 3, 4]


def test_discovery_loads_neither_torch_nor_mlflow_nor_optuna():
    script = (
        "import sys; from hydra.core.plugins import Plugins; Plugins.instance()\n"
        "assert 'hydra_plugins.lockstep_launcher.lockstep_launcher' in sys.modules\n"
        "assert 'hydra_plugins.lockstep_search.lockstep_search' in sys.modules\n"
        "print(sorted({'torch', 'mlflow', 'optuna', 'pandas'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
