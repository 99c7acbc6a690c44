"""The representations in any module: what its layers get, see `layer_inputs`.

Shapes: N instances, F features, H features of a representation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lockstep.training.array import rows_at_once
from lockstep.training.networks import ModuleNetwork

MOST = 6
"""Representations of a network."""

WIDEST = 1000
"""Features of one: wider maps are averaged over blocks of pixels."""


@torch.no_grad()
def layer_inputs(network: ModuleNetwork, x_NxF: Tensor) -> dict[str, Tensor]:
    """Return the inputs of a module's layers, N x H each, by the layers' paths in the module.

    These are the layers with a weight of two axes or more; so activations are seen that are no modules. Those
    that are fed the data itself are left out. Of more than MOST, these are spread evenly over the order in
    which they are called, first and last included.
    """
    layers = {path: layer for path, layer in network.module.named_modules() if _has_weights(layer)}
    paths = list(_inputs(network, layers, x_NxF[:2]))  # to hold in memory only those that are returned
    if len(paths) > MOST:
        paths = [paths[round(place * (len(paths) - 1) / (MOST - 1))] for place in range(MOST)]
    return _inputs(network, {path: layers[path] for path in paths}, x_NxF)


def _has_weights(layer: nn.Module) -> bool:
    """Tell whether a layer owns a weight of two axes or more, be it parametrized (`weight_norm`, ...)."""
    if isinstance(layer, torch.jit.ScriptModule):  # has no hooks
        return False
    owners = [layer]
    if parametrize.is_parametrized(layer):
        parametrizations: Any = layer.parametrizations
        owners += parametrizations.values()
    return any(parameter.ndim > 1 for owner in owners for parameter in owner.parameters(recurse=False))


def _inputs(network: ModuleNetwork, layers: Mapping[str, nn.Module], x_NxF: Tensor) -> dict[str, Tensor]:
    """Return what these layers get, in the order in which they are called; of several calls, the first."""
    parts: dict[str, list[Tensor]] = {}
    data: list[Tensor] = []

    def keep(path: str, given: tuple[object, ...]) -> None:
        is_first = len(parts.get(path, ())) < len(data)
        if given and isinstance(given[0], Tensor) and is_first and not _shares(given[0], data[-1]):
            parts.setdefault(path, []).append(_flat(given[0].detach(), len(data[-1])))

    hooks = [
        layer.register_forward_pre_hook(lambda _, given, path=path: keep(path, given))
        for path, layer in layers.items()
    ]
    try:
        for x_BxF in torch.split(x_NxF, rows_at_once(network)):
            data.append(network.eval().seen(x_BxF))
            network.module(data[-1])
    finally:
        for hook in hooks:
            hook.remove()
    found = {path: torch.cat(of_path) for path, of_path in parts.items() if len(of_path) == len(data)}
    return {path: h for path, h in found.items() if len(h) == len(x_NxF)}


def _shares(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors are views of the same memory."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _flat(x: Tensor, n: int) -> Tensor:
    """Return instances as rows, N x H, H at most WIDEST; anything that isn't N instances is left out."""
    if x.ndim < 2 or len(x) != n:
        return x.new_empty(0, 0)
    if x[0].numel() > WIDEST and x.ndim > 2:
        channels = x.shape[1]
        side = max(1, int((WIDEST / channels) ** 0.5))
        x = nn.functional.adaptive_avg_pool2d(x.flatten(3) if x.ndim > 3 else x[:, :, None], _size(x, side))
    rows = x.flatten(1)
    return rows if rows.shape[1] <= WIDEST else nn.functional.adaptive_avg_pool1d(rows[:, None], WIDEST)[:, 0]


def _size(x: Tensor, side: int) -> tuple[int, int]:
    height, width = (x.shape[2], x.shape[3:].numel()) if x.ndim > 3 else (1, x.shape[2])
    return min(side, height), min(side if x.ndim > 3 else side**2, width)
