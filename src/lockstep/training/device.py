"""The device that a run trains on, and its CPU settings and speed."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lockstep.config.schema import TrainerConfig
from lockstep.training.device_name import device_name


def device_of(trainer: TrainerConfig) -> torch.device:
    """Return the device that a run trains on.

    Raises:
        Refused: see `device_name`.
    """
    return torch.device(device_name(trainer))


@contextmanager
def cpu_settings(device: torch.device, flush_denormal: bool = True, threads: int = 1) -> Iterator[None]:
    """Compute on the CPU with so many intra-op threads, in training with denormals flushed to zero.

    The momentum of weights of a pixel that is always blank decays into denormals, which would make an epoch
    take a third longer. The earlier settings return at the end, so this may be nested.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    flushed = torch.full((), 2.0**-126).mul(0.5).item() == 0  # torch can't be asked
    torch.set_num_threads(threads)
    torch.set_flush_denormal(flush_denormal)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)


def gemm_flops() -> float:
    """Return the FLOP/s of a 1024 x 1024 x 1024 GEMM in float32 on one thread, the best of 5."""
    with cpu_settings(torch.device("cpu")):
        a = torch.ones(1024, 1024)
        product, seconds = torch.mm(a, a), math.inf
        for _ in range(5):
            started = time.perf_counter()
            torch.mm(a, a, out=product)
            seconds = min(seconds, time.perf_counter() - started)
    return 2 * 1024**3 / seconds


def cpu_capability() -> str:
    """Return the vector instructions that torch uses here, such as AVX512."""
    return str(torch.backends.cpu.get_cpu_capability())


def widest(device: torch.device) -> torch.dtype:
    """Return the dtype that means are taken in: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
