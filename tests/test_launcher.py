import subprocess
import sys
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

REPOSITORY = Path(__file__).resolve().parents[1]


def test_hydra_discovers_the_launcher():
    assert "LockstepLauncher" in {plugin.__name__ for plugin in Plugins.instance().discover(Launcher)}


def test_discovery_loads_neither_torch_nor_mlflow():
    script = (
        "import sys; from hydra.core.plugins import Plugins; Plugins.instance()\n"
        "assert 'hydra_plugins.lockstep_launcher.lockstep_launcher' in sys.modules\n"
        "print(sorted({'torch', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
