"""One GEMM for all runs of a stack instead of one for each: faster where the runs have few outputs.

Whether a GEMM gives each run the bits of its own GEMM depends on the kernels that a library chooses for its
shape. So the shape is tried.
"""

import math
from functools import cache

import torch
from torch import Tensor

N_COMPARED = 4096
"""The least number of outputs that are compared."""


@cache
def keeps_bits(n_runs: int, n_out: int, n_in: int, n_rows: int, dtype: torch.dtype) -> bool:
    """Tell whether one layer of several runs, on the same inputs, has the same bits in one GEMM for all runs.

    With torch 2.14 and MKL on Zen 4 it does in float32 from 4 outputs and 8 rows on, and it takes 0.7 of the
    time for 10 outputs; in float64 it mostly doesn't.
    """
    generator = torch.Generator().manual_seed(0)
    # Few outputs may round alike by chance: different kernels differ in about one of three.
    n_trials = math.ceil(N_COMPARED / (n_runs * n_out * n_rows))
    shape = (n_runs, n_out, n_in, n_rows)
    return all(_keeps_bits(*shape, dtype, generator) for _ in range(n_trials))


def _keeps_bits(
    n_runs: int, n_out: int, n_in: int, n_rows: int, dtype: torch.dtype, generator: torch.Generator
) -> bool:
    """Tell whether drawn factors of this shape have the same products."""

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype, generator=generator)

    w_RxOxI, grad_RxOxB, x_BxI = (
        drawn(n_runs, n_out, n_in),
        drawn(n_runs, n_out, n_rows),
        drawn(n_rows, n_in),
    )
    x_IxB, sums_RxOxI = x_BxI.t(), drawn(n_runs, n_out, n_in)
    # Clones, as factors lie at other alignments in a stack than alone, which may change the kernel.
    alone_OxB = torch.cat([torch.mm(w_OxI.clone(), x_IxB) for w_OxI in w_RxOxI])
    if not torch.equal(alone_OxB, torch.mm(w_RxOxI.flatten(0, 1), x_IxB)):
        return False
    return all(
        torch.equal(_products(n_runs, sums, a, b, beta), _products(1, sums, a, b, beta))
        for sums, a, b, beta in (
            (torch.zeros_like(grad_RxOxB), w_RxOxI, x_IxB, 0.0),
            (sums_RxOxI, grad_RxOxB, x_BxI, 0.0),
            (sums_RxOxI, grad_RxOxB, x_BxI, 0.9),
        )
    )


def _products(n_joined: int, sums_RxOxN: Tensor, a_RxOxM: Tensor, b_MxN: Tensor, beta: float) -> Tensor:
    """Return beta * sums + a @ b, R x O x N, in GEMMs of `n_joined` runs each."""
    out_RxOxN = sums_RxOxN.clone()
    for out, a in zip(torch.split(out_RxOxN, n_joined), torch.split(a_RxOxM, n_joined), strict=True):
        joined = out.reshape(1, -1, out.shape[-1]).clone()
        factor = a.reshape(1, -1, a.shape[-1]).clone()
        torch.baddbmm(joined, factor, b_MxN[None], beta=beta, out=joined)
        out.copy_(joined.view_as(out))
    return out_RxOxN
