"""A network's parts, forward and backward by hand: linear layers, activations, dropout masks.

Instances lie along the last axis (weights O x I, activations O x B), the fastest orientation for GEMM at
these shapes.

Shapes: B minibatch, R runs of a stack, G GEMMs of a batch (R, or the blocks of one run's layer), I and O a
layer's inputs and outputs, P a run's parameters.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lockstep.training.joined import keeps_bits

ALIGNED_BYTES = 64
"""The alignment of torch's own allocations on the CPU."""

ONEDNN_FROM = 16**3
"""torch gives bfloat16's batches of more multiplications than this to oneDNN (its mkldnn_gemm_min_size)."""

BLOCK_UNITS = 128
"""Units in a block of a large network's layer; blocks are larger where 128 doesn't divide the width."""


def _relu_backward(grad: Tensor, h: Tensor, z: Tensor, kept: Tensor | None) -> None:
    torch.ops.aten.threshold_backward.grad_input(grad, h, 0, grad_input=grad)


def _sigmoid_backward(grad: Tensor, h: Tensor, z: Tensor, kept: Tensor | None) -> None:
    torch.ops.aten.sigmoid_backward.grad_input(grad, h, grad_input=grad)


def _tanh_backward(grad: Tensor, h: Tensor, z: Tensor, kept: Tensor | None) -> None:
    torch.ops.aten.tanh_backward.grad_input(grad, h, grad_input=grad)
    if kept is not None:  # a dropped unit's h is 0, where tanh's derivative is 1; ReLU's and sigmoid's are 0
        grad.mul_(kept)


# Run by run: torch gives contiguous tensors to oneDNN, whose erf rounds differently from torch's own, and a
# tensor that is contiguous for one run isn't for several.
def _gelu(z: Tensor, out: Tensor) -> None:
    for z_OxB, out_OxB in zip(z.unbind(), out.unbind(), strict=True):
        torch.ops.aten.gelu.out(z_OxB, out=out_OxB)


def _gelu_backward(grad: Tensor, h: Tensor, z: Tensor, kept: Tensor | None) -> None:
    for grad_OxB, z_OxB in zip(grad.unbind(), z.unbind(), strict=True):
        torch.ops.aten.gelu_backward.grad_input(grad_OxB, z_OxB, grad_input=grad_OxB)
    if kept is not None:
        grad.mul_(kept)


@dataclass(frozen=True)
class Activation:
    """An activation, forward and backward.

    Attributes:
        forward: (z, out): writes the activation of a layer's outputs z to `out`, which may be z itself.
        backward: (grad, h, z, kept), R x O x B each: turns d loss/d h in `grad` into d loss/d z in place.
            h is the output after dropout; `kept` marks the units that dropout kept.
        keeps_z: whether the backward pass needs z; if not, z and `out` are one tensor.
    """

    forward: Callable[..., object]
    backward: Callable[..., None]
    keeps_z: bool = False


ACTIVATIONS: dict[type[nn.Module], Activation] = {
    nn.ReLU: Activation(lambda z, out: torch.relu_(z), _relu_backward),
    nn.GELU: Activation(_gelu, _gelu_backward, keeps_z=True),
    nn.Sigmoid: Activation(lambda z, out: torch.sigmoid_(z), _sigmoid_backward),
    nn.Tanh: Activation(lambda z, out: torch.tanh_(z), _tanh_backward),
}


def draw_kept(rate: float, generator: torch.Generator, bits: Tensor, out: Tensor) -> Tensor:
    """Draw the units that dropout keeps into `out`: 1 for kept, 0 for dropped.

    torch.nn.Dropout takes no generator, so this draws itself: 8 random bits per unit where they make `rate`
    exact, else 16, which give it to the nearest 1/65536. Two calls draw the same units as one.

    Args:
        bits: scratch on the CPU, int64, a quarter of `out` in length.
        out: N units on any device, N a multiple of 8.
    """
    lane, values = (torch.int8, 256) if (rate * 256).is_integer() else (torch.int16, 65536)
    drawn = bits[: len(out) * lane.itemsize // 8].random_(-(2**63), None, generator=generator).view(lane)
    return out.copy_(drawn.ge_(round(rate * values) - values // 2))


def n_blocks(n_units: int) -> int:
    """Return the number of equal blocks, of BLOCK_UNITS or more, that a layer is cut into."""
    return max(n for n in range(1, max(1, n_units // BLOCK_UNITS) + 1) if n_units % n == 0)


def of_runs(like: Tensor, n_runs: int, *shape: int) -> Tensor:
    """Return zeros, R x `shape`, in which each run's part is aligned as if it were allocated alone.

    MKL rounds a GEMM's last columns differently where its result lies at another alignment.
    """
    n, unit = math.prod(shape), ALIGNED_BYTES // like.itemsize
    return like.new_zeros(n_runs, -(-n // unit) * unit)[:, :n].view(n_runs, *shape)


def is_aligned(like: Tensor, *shape: int) -> bool:
    """Tell whether such parts lie at aligned addresses one after the other, without padding."""
    return math.prod(shape) * like.itemsize % ALIGNED_BYTES == 0


def of_steps(like: Tensor, n_runs: int, n_steps: int, *shape: int) -> Tensor:
    """Return T x R x `shape`, in which each run's part of a step is aligned, as it is for the run alone.

    A run that resumes amid an epoch takes the same minibatch as another step of a stretch.
    """
    return of_runs(like, n_steps * n_runs, *shape).view(n_steps, n_runs, *shape)


class OnThreads:
    """A context in which kernels use n intra-op threads.

    It is for elementwise kernels and for batches of n GEMMs or more only. Two threads on one GEMM would split
    its sums, and round differently from one thread.
    """

    def __init__(self, n: int) -> None:
        self.n, self._before = n, 1

    def __enter__(self) -> None:
        if self.n > 1:
            self._before = torch.get_num_threads()
            torch.set_num_threads(self.n)

    def __exit__(self, *_: object) -> None:
        if self.n > 1:
            torch.set_num_threads(self._before)


class Layer:
    """A linear layer of every run of a stack: views of its parameters and gradients, minibatch buffers.

    A bias is the weight of one more input that is always 1, so that GEMM also adds biases and sums their
    gradients. J is I, that input, and zeros up to an aligned width. GEMMs take all of J, because whole
    contiguous matrices are faster.

    Args:
        w_RxOxJ, grad_RxOxJ: parameters and gradients.
        dtype: the dtype that GEMMs compute in; if it isn't the parameters' own, GEMMs take copies.
        n_in: I.
        alpha: dropout's scale 1 / (1 - rate) for the inputs, 1 without dropout.
        blocks: the number of blocks that the layer's units are cut into, a GEMM each; 1 for several runs.
    """

    def __init__(
        self,
        w_RxOxJ: Tensor,
        grad_RxOxJ: Tensor,
        dtype: torch.dtype,
        n_in: int,
        alpha: float,
        blocks: int,
    ) -> None:
        self.n_runs, self.n_out, self.width = w_RxOxJ.shape
        self.n_in, self.blocks, self.alpha = n_in, blocks, alpha
        self.on_threads = OnThreads(1)
        self._params_RxOxJ = self._w_RxOxJ = w_RxOxJ
        self._grad_RxOxJ = grad_RxOxJ
        if dtype != w_RxOxJ.dtype:
            self._w_RxOxJ = of_runs(w_RxOxJ.new_empty(0, dtype=dtype), *w_RxOxJ.shape).copy_(w_RxOxJ)
        self.w_RxOxI = self._w_RxOxJ[:, :, :n_in]
        # A hidden layer's outputs after and before its activation, once allocated.
        self.out_RxOxB = self.z_RxOxB = self.z_GxOxB = self.w_RxOxI.new_empty(0)
        # A minibatch's gradients, in GEMM's dtype and the parameters', where GEMM can't accumulate them.
        if self._copies:
            self._new_GxOxJ = of_runs(self._w_RxOxJ, *w_RxOxJ.shape)
            self._new_grad_GxOxJ = torch.empty_like(w_RxOxJ, memory_format=torch.contiguous_format)

    def allocate(self, n_rows: int, below: "Layer | None", keeps_z: bool) -> None:
        """Allocate buffers for minibatches of `n_rows` instances, the outputs of the layer `below`.

        The first layer (`below` is None) has an input buffer only where inputs are dropped.
        """
        is_joined = below is None and self._can_join(n_rows)
        self.n_gemms = 1 if is_joined else self.n_runs * self.blocks
        self._is_batched = self.n_runs == 1 or is_joined or self._can_batch(n_rows)
        self.w_GxOxJ = self._of_gemms(self._w_RxOxJ)
        self.grad_GxOxJ = self._of_gemms(self._grad_RxOxJ)
        self.grad_RxOxB = of_runs(self.w_RxOxI, self.n_runs, self.n_out, n_rows)
        self.grad_GxOxB = self._of_gemms(self.grad_RxOxB)
        if below is None and self.alpha == 1:
            return
        in_RxJxB = of_runs(self.w_RxOxI, self.n_runs, self.width, n_rows)
        in_RxJxB[:, self.n_in] = 1 / self.alpha  # GEMM's alpha makes it 1
        self.in_GxJxB = in_RxJxB.expand(self.n_gemms, -1, -1)
        self.in_GxBxJ = self.in_GxJxB.transpose(1, 2)
        self.in_RxIxB = in_RxJxB[:, : self.n_in]
        if below is None:
            return
        below.out_RxOxB = self.in_RxIxB
        below.z_RxOxB = below.out_RxOxB
        if keeps_z:
            below.z_RxOxB = of_runs(self.w_RxOxI, self.n_runs, self.n_in, n_rows)
        below.z_GxOxB = below._of_gemms(below.z_RxOxB)
        # The backward pass has one GEMM for each block of the layer below.
        w_RxIxO = self.w_RxOxI.transpose(1, 2)
        self.back_w_GxIxO = w_RxIxO.view(below.blocks, -1, self.n_out) if below.blocks > 1 else w_RxIxO
        self.back_grad_GxOxB = self.grad_RxOxB.expand(below.n_gemms, -1, -1)
        self.below_grad_GxIxB = below.grad_GxOxB

    def _can_join(self, n_rows: int) -> bool:
        """Tell whether one GEMM for all runs, which have the same inputs, gives each the bits of its own."""
        w_RxOxJ = self._w_RxOxJ
        return (
            self.n_runs > 1
            and self.alpha == 1
            and w_RxOxJ.is_contiguous()  # the only layer of its networks
            and is_aligned(w_RxOxJ, self.n_out, n_rows)
            and not self._copies
            and w_RxOxJ.device.type == "cpu"
            and keeps_bits(self.n_runs, self.n_out, self.width, n_rows, w_RxOxJ.dtype)
        )

    def _can_batch(self, n_rows: int) -> bool:
        """Tell whether a batch of several runs' GEMMs gives each the bits of its GEMM alone.

        It doesn't if a factor is a vector, which alone goes to another kernel, or if only the batch is large
        enough for oneDNN. Of 3,861 shapes and precisions tried with torch 2.14 and MKL on Zen 4, no other
        differed, once the results were aligned.
        """
        sizes = (self.n_out, self.n_in, n_rows)
        is_float = self.w_RxOxI.dtype != torch.bfloat16
        return 1 not in sizes and (is_float or math.prod(sizes) > ONEDNN_FROM)

    @property
    def _copies(self) -> bool:
        return self._w_RxOxJ is not self._params_RxOxJ

    def refresh(self) -> None:
        """Copy the updated parameters, where GEMMs take copies."""
        if self._copies:
            self._w_RxOxJ.copy_(self._params_RxOxJ)

    def forward(self, in_GxJxB: Tensor, out_GxOxB: Tensor) -> None:
        """Write the layer's outputs before the activation to `out_GxOxB`."""
        with self.on_threads:
            self._gemm(out_GxOxB, self.w_GxOxJ, in_GxJxB)

    def accumulate(self, in_GxBxJ: Tensor, keep: float) -> None:
        """Set the gradient buffer to `keep` times itself plus the parameters' gradients."""
        with self.on_threads:
            if not self._copies:
                self._gemm(self.grad_GxOxJ, self.grad_GxOxB, in_GxBxJ, keep)
                return
            self._gemm(self._new_GxOxJ, self.grad_GxOxB, in_GxBxJ)
            if not keep:
                self.grad_GxOxJ.copy_(self._new_GxOxJ)
                return
            # Two passes; adding another dtype would take a third, and memory for it.
            self._new_grad_GxOxJ.copy_(self._new_GxOxJ)
            torch.add(self._new_grad_GxOxJ, self.grad_GxOxJ, alpha=keep, out=self.grad_GxOxJ)

    def backward(self) -> None:
        """Write d loss/d input, without dropout's mask, to the gradients of the layer below."""
        self._gemm(self.below_grad_GxIxB, self.back_w_GxIxO, self.back_grad_GxOxB)

    def _gemm(self, out: Tensor, a: Tensor, b: Tensor, beta: float = 0) -> None:
        """Set `out` to beta * out + alpha * a @ b, as one batch or GEMM by GEMM."""
        if self._is_batched:
            torch.baddbmm(out, a, b, beta=beta, alpha=self.alpha, out=out)
            return
        for of_run in zip(*(torch.split(factor, 1) for factor in (out, a, b)), strict=True):
            torch.baddbmm(*of_run, beta=beta, alpha=self.alpha, out=of_run[0])

    def _of_gemms(self, tensor: Tensor) -> Tensor:
        """Return R x O x ... as G x R O / G x ..."""
        return tensor if self.n_gemms == self.n_runs else tensor.view(self.n_gemms, -1, tensor.shape[2])
