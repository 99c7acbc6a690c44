"""Runs stacked on a GPU: hundreds take a step in the same few kernels, which the host doesn't wait for.

What differs from a stack on the CPU:
- masks are drawn on the device, from each run's seed and iteration;
- one update changes all runs, each by its own hyperparameters;
- the steps of a stretch are recorded as a CUDA graph, and later stretches replay it;
- the evaluation takes all runs at once.

The same stack gives the same bits on the same card and libraries. Another number of runs in it may not: the
libraries choose a batch's kernels by its size.

Shapes: T steps of a stretch, N instances, C classes, R runs of a stack, U units or inputs of a minibatch.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from lockstep.training.batched_update import BatchedUpdate
from lockstep.training.device import widest
from lockstep.training.networks import MultilayerPerceptron
from lockstep.training.run import Run
from lockstep.training.scores import counted
from lockstep.training.stack import Stack
from lockstep.training.stretch import Stretch, steps_at_once

WORDS_AT_ONCE = 2**22
"""Words of masks that are drawn at a time: 32 MB, which a large GPU's cache holds from kernel to kernel."""

EVALUATED_AT_ONCE = 2**28
"""Outputs of a layer in an evaluation, of all runs together: 1 GiB in float32."""

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
"""SplitMix64's increment as a signed number (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number
generators")."""


class DeviceStack(Stack):
    """R runs of equal `Run.kernels` on a GPU."""

    def __init__(self, runs: Sequence[Run], dtype: torch.dtype) -> None:
        super().__init__(runs, dtype)
        first = runs[0]
        optimizers = [run.optimizer for run in runs]
        self._updates = BatchedUpdate(optimizers, self._params_RxP, self._grads_RxP)
        device = first.params_P.device
        seeds = [run.dropout_generator.initial_seed() for run in runs]
        self._seeds_R = torch.tensor([seed - 2**64 if seed >= 2**63 else seed for seed in seeds]).to(device)
        self._max_norm = first.network.max_norm if isinstance(first.network, MultilayerPerceptron) else None
        hidden = zip(first.matrices(self._params_RxP)[:-1], first.shapes, strict=False)
        self._hidden_w = [w_RxOxJ[:, :, :n_in] for w_RxOxJ, (_, n_in) in hidden]

    def _allocate(self, stretch: Stretch) -> None:
        super()._allocate(stretch)
        self._updates.allocate(steps_at_once(stretch.n_rows))
        self._graphs: dict[int, torch.cuda.CUDAGraph | None] = {}

    def _draw(self, n_steps: int) -> None:
        """Draw the masks of the next `n_steps` minibatches; see `draw_kept`."""
        first = self.runs[0]
        iterations_T = first.optimizer.steps + torch.arange(n_steps, device=self._seeds_R.device)
        if first.rate:
            draw_kept(first.rate, self._seeds_R, iterations_T, 0, out=self._kept_RxTxU[:, :n_steps])
        if first.input_rate:
            draw_kept(first.input_rate, self._seeds_R, iterations_T, 1, out=self._kept_RxTxF[:, :n_steps])

    def _take(self, n_steps: int) -> None:
        """Take the steps: one by one the first time, which warms up, then from a graph of all."""
        self._updates.prepare(n_steps)
        if self._seeds_R.device.type != "cuda" or n_steps not in self._graphs:
            super()._take(n_steps)
            self._graphs[n_steps] = None
            return
        if (graph := self._graphs[n_steps]) is None:
            graph = self._graphs[n_steps] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                super()._take(n_steps)
        graph.replay()

    def _update(self, step: int) -> None:
        self._updates.step(step)
        if self._max_norm is not None:
            for w_RxOxI in self._hidden_w:
                constrain(w_RxOxI, self._max_norm)

    @torch.no_grad()
    def evaluate(self, x_NxF: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate every run on N instances, in evaluation mode.

        Returns:
            loss_R, mean cross-entropies, in `widest`; counts_RxCx2, see `lockstep.training.scores.counted`.
        """
        networks = [run.network.eval() for run in self.runs]
        params, _ = stack_module_state(list(networks))
        network = copy.deepcopy(networks[0]).to("meta")

        def logits_of(of_run: dict[str, Tensor], x_BxF: Tensor) -> Tensor:
            logits_BxC: Tensor = functional_call(network, of_run, (x_BxF,))
            return logits_BxC

        units = max(n_out for n_out, _ in self.runs[0].shapes)
        n_rows = max(1, EVALUATED_AT_ONCE // (len(networks) * units))
        dtype = widest(x_NxF.device)
        loss_R = torch.zeros(len(networks), dtype=dtype, device=x_NxF.device)
        n_classes = self.runs[0].n_classes
        counts_RxCx2 = torch.zeros(len(networks), n_classes, 2, dtype=torch.int64, device=x_NxF.device)
        for x_BxF, y_B in zip(torch.split(x_NxF, n_rows), torch.split(y_N, n_rows), strict=True):
            logits_RxBxC = torch.vmap(logits_of, (0, None))(params, x_BxF)
            y_RxB = y_B.expand(len(networks), -1)
            loss_RxB = nn.functional.cross_entropy(logits_RxBxC.transpose(1, 2), y_RxB, reduction="none")
            loss_R += loss_RxB.sum(1, dtype=dtype)
            counts_RxCx2 += counted(logits_RxBxC.argmax(2), y_B, n_classes)
        return loss_R / len(y_N), counts_RxCx2


def draw_kept(rate: float, seeds_R: Tensor, iterations_T: Tensor, stream: int, out: Tensor) -> None:
    """Draw the units that dropout keeps into `out`, R x T x U: 1 for kept, 0 for dropped.

    Word w of a run's iteration is SplitMix64's output w from a hash of seed, iteration and stream.
    As on the CPU, a unit takes 8 random bits where they make `rate` exact, else 16.

    Args:
        seeds_R: each run's seed, int64.
        iterations_T: the number of each iteration in its run, int64.
        stream: another number draws independent masks.
        out: U is a multiple of 8.
    """
    lane, values = (torch.int8, 256) if (rate * 256).is_integer() else (torch.int16, 65536)
    n_words = out.shape[2] * lane.itemsize // 8
    states_RxT = mixed(mixed(seeds_R + stream)[:, None] + iterations_T)
    words_W = GOLDEN * torch.arange(1, n_words + 1, device=out.device)
    n_runs = max(1, WORDS_AT_ONCE // (n_words * len(iterations_T)))
    for states_ExT, out_ExTxU in zip(torch.split(states_RxT, n_runs), torch.split(out, n_runs), strict=True):
        drawn_ExTxU = mixed(states_ExT[..., None] + words_W).view(lane)
        out_ExTxU.copy_(drawn_ExTxU.ge_(round(rate * values) - values // 2))


def mixed(z: Tensor) -> Tensor:
    """Return SplitMix64's hash of each 64-bit word."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64)):
        z = (z ^ (z >> shift & (1 << 64 - shift) - 1)) * factor  # >> copies the sign
    return z ^ (z >> 31 & (1 << 33) - 1)


def constrain(w_RxOxI: Tensor, max_norm: float) -> None:
    """Scale each unit's incoming weights to an L2 norm <= `max_norm`, as torch.renorm does."""
    norm_RxOx1 = torch.linalg.vector_norm(w_RxOxI, dim=2, keepdim=True)
    w_RxOxI.mul_((max_norm / (norm_RxOx1 + 1e-7)).clamp(max=1))
