"""A trained run's artifacts, written and read: config, history, weights."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lockstep.config.errors import Refused
from lockstep.config.model_config import ModuleConfig
from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.results.run_files import BUFFERS, CONFIG, WEIGHTS, write_history
from lockstep.training import network_code, networks
from lockstep.training.loop import TrainedRun
from lockstep.training.networks import Network, named


def write_run(run: TrainedRun, folder: Path) -> None:
    """Write a run's config and history, and with `tracking.weights=all` its weights unless it diverged."""
    write_history(run.config, run.history, folder)
    if run.config.tracking.weights == "all":
        write_weights(run, folder)
    if isinstance(run.config.model, ModuleConfig):
        code = network_code.of(run.config.model)
        (folder / "code").mkdir()
        (folder / "code" / Path(code.file).name).write_bytes(code.content)


def write_weights(run: TrainedRun, folder: Path) -> None:
    """Write a run's weights unless it diverged."""
    if run.history.diverged_at is None:
        (folder / "model").mkdir(parents=True, exist_ok=True)
        _write_tensors(named(run.network).state_dict(), folder / WEIGHTS)
        if others := _others(run.network):
            _write_tensors(others, folder / BUFFERS)


def _write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    # Contiguous copies: in the array weights are views with padding between the rows.
    copies = {
        name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    written = io.BytesIO()  # torch.save to a file would turn a full disk's OSError into a RuntimeError
    torch.save(copies, written)
    file.write_bytes(written.getvalue())


def _others(network: Network) -> dict[str, Tensor]:
    """Return the buffers that a network's state_dict leaves out: registered with persistent=False."""
    module = named(network)
    saved = module.state_dict().keys()
    return {name: tensor for name, tensor in module.named_buffers() if name not in saved}


def read_network(config: RunConfig, data: DataDescription, file: Path) -> Network:
    """Return a run's network with the weights of a file, on the CPU, in their dtype.

    Raises:
        Refused: if the file doesn't hold such weights.
    """
    network = networks.initial(config, data)
    weights = _read_tensors(file, named(network).state_dict())
    dtype = next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    named(network.to(dtype)).load_state_dict(weights)
    if others := _others(network):
        for name, tensor in _read_tensors(_beside(file), others).items():
            others[name].copy_(tensor)
    return network


def differing_weights(file: Path, network: Network) -> dict[str, float]:
    """Return the largest differences of a network's weights from a file's, by name, where a bit differs.

    Raises:
        Refused: if the file doesn't hold weights of such a network.
    """
    now, others = named(network).state_dict(), _others(network)
    stored = {**_read_tensors(file, now), **(_read_tensors(_beside(file), others) if others else {})}
    return {
        name: (stored[name].double() - tensor.cpu().double()).abs().max().item()
        for name, tensor in (now | others).items()
        if not torch.equal(stored[name], tensor.cpu())
    }


def _beside(weights: Path) -> Path:
    return weights.with_name(Path(BUFFERS).name)


def _read_tensors(file: Path, like: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    what = f"{file.parent.name}/{file.name}"
    wanted = {name: _kind(tensor) for name, tensor in like.items()}
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > 2**20 + 2 * 8 * sum(tensor.numel() for tensor in like.values()):
            raise ValueError(f"{size:,} bytes")
        weights: Mapping[str, Tensor] = torch.load(file, weights_only=True, map_location="cpu")
        found = {name: _kind(tensor) for name, tensor in weights.items()}
        dtypes = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    except Exception as error:  # malformed content can raise nearly anything
        raise Refused([f"{what}: can't be read ({type(error).__name__})"]) from error
    differ = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if differ or len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        names = ", ".join(differ[:5])
        raise Refused([f"{what}: not the weights of the network in {CONFIG}: {names or dtypes}"])
    return weights


def _kind(tensor: Tensor) -> tuple[tuple[int, ...], object]:
    """Return a tensor's shape and dtype; those of floating-point numbers count as one."""
    return tuple(tensor.shape), "float" if tensor.is_floating_point() else tensor.dtype
