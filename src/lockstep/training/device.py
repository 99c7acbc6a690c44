"""The device that a run trains on, and its CPU settings and speed."""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
from torch.backends import cudnn

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


def gpu_settings(device: torch.device) -> AbstractContextManager[None]:
    """Have convolutions on a GPU compute in float32, not TF32, by algorithms that sum in one order."""
    if device.type != "cuda":
        return nullcontext()
    return cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


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


Moment = float | torch.cuda.Event
"""A moment, of which `seconds_between` tells how far apart two are."""


def moment(device: torch.device) -> Moment:
    """Return now, on a GPU the moment at which it will have done what it was given so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def seconds_between(start: Moment, end: Moment) -> float:
    """Return the seconds from one moment of a device to another; wait for it on a GPU."""
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000
    return cast(float, end) - cast(float, start)


def widest(device: torch.device) -> torch.dtype:
    """Return the dtype that means are taken in: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
