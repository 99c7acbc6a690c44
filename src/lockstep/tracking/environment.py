"""A run's description, and the environment that it was trained in."""

import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from loky import cpu_count

from lockstep.config.model_config import CNNConfig, LogRegConfig, ModelConfig, ModuleConfig
from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription


def note(config: RunConfig, data: DataDescription) -> str:
    """Return a run's description in one line."""
    trainer, optim = config.trainer, config.optim
    patience = "" if trainer.patience is None else f", patience {trainer.patience} ({trainer.monitor})"
    return (
        f"{_network(config.model, data)}; {optim.name}, lr {optim.lr:g} ({optim.schedule}); {data.name}"
        f" ({data.digest[:8]}), batches of {config.data.batch_size}; {trainer.epochs} epochs{patience},"
        f" {trainer.precision}, seed {config.seed}"
    )


def _network(model: ModelConfig, data: DataDescription) -> str:
    if isinstance(model, ModuleConfig):
        settings = ", ".join(f"{key}={value}" for key, value in model.settings.items())
        return f"{model.source.partition('@')[0]}({settings})"
    if isinstance(model, CNNConfig):
        norm = ", batch norm" if model.batch_norm else ""
        convolutions, widths = ("-".join(map(str, dims)) for dims in (model.channels, model.hidden_dims))
        of_cnn = (
            f"convolutions {convolutions} of {model.kernel} x {model.kernel}{norm}, hidden {widths or 'none'}"
        )
        return f"{model.name}, {of_cnn}, dropout {model.dropout:g}"
    hidden = () if isinstance(model, LogRegConfig) else model.hidden_dims
    widths = "-".join(map(str, (data.n_features, *hidden, data.n_classes)))
    of_mlp = "" if isinstance(model, LogRegConfig) else f", {model.activation}, dropout {model.dropout:g}"
    return f"{model.name} {widths}{of_mlp}"


@cache
def environment() -> str:
    """Return versions and machine as JSON: numbers and times depend on them."""
    return json.dumps(
        {
            "python": platform.python_version(),
            **{
                name: metadata.version(name) for name in ("torch", "numpy", "scipy", "scikit-learn", "mlflow")
            },
            "machine": platform.machine(),
            "system": platform.system(),
            "cores": cpu_count(),
        }
    )


@cache
def git_commit() -> str | None:
    """Return the commit of this code, None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
