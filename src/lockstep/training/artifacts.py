"""A trained run's artifacts, written and read: config, history, weights."""

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lockstep.config.errors import Refused
from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.results import history_file
from lockstep.results.history import History
from lockstep.training import networks
from lockstep.training.loop import TrainedRun
from lockstep.training.networks import Network

CONFIG = "config.yaml"
WEIGHTS = "model/state_dict.pt"


def write_run(run: TrainedRun, folder: Path) -> None:
    """Write a run's config and history, and its weights unless it diverged."""
    write_history(run.config, run.history, folder)
    if run.history.diverged_at is None:
        (folder / "model").mkdir()
        # Contiguous copies: in the array weights are views with padding between the rows.
        weights = {
            name: tensor.cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in run.network.state_dict().items()
        }
        written = io.BytesIO()  # torch.save to a file would turn a full disk's OSError into a RuntimeError
        torch.save(weights, written)
        (folder / WEIGHTS).write_bytes(written.getvalue())


def write_history(config: RunConfig, history: History, folder: Path) -> None:
    """Write a run's config and history."""
    (folder / CONFIG).write_text(config.to_yaml())
    history_file.write(history, folder)


def read_network(config: RunConfig, data: DataDescription, file: Path) -> Network:
    """Return a run's network with the weights of a file, on the CPU, in their dtype.

    Raises:
        Refused: if the file doesn't hold such weights.
    """
    network = networks.initial(config, data)
    weights = _read_weights(file, network)
    network.to(next(iter(weights.values())).dtype).load_state_dict(weights)
    return network


def differing_weights(file: Path, network: Network) -> list[str]:
    """Return the names of a network's weights that differ in any bit from a file's.

    Raises:
        Refused: if the file doesn't hold weights of such a network.
    """
    weights = _read_weights(file, network)
    return [
        name for name, tensor in network.state_dict().items() if not torch.equal(weights[name], tensor.cpu())
    ]


def _read_weights(file: Path, network: Network) -> Mapping[str, Tensor]:
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > 2**20 + 2 * 8 * sum(map(math.prod, wanted.values())):
            raise ValueError(f"{size:,} bytes")
        weights: Mapping[str, Tensor] = torch.load(file, weights_only=True, map_location="cpu")
        found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        dtypes = {tensor.dtype for tensor in weights.values()}
    except Exception as error:  # malformed content can raise nearly anything
        raise Refused([f"{WEIGHTS}: can't be read ({type(error).__name__})"]) from error
    differ = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if differ or len(dtypes) != 1 or not dtypes <= {torch.float32, torch.float64}:
        names = ", ".join(differ[:5])
        raise Refused([f"{WEIGHTS}: not the weights of the network in {CONFIG}: {names or dtypes}"])
    return weights
