"""Runs whose networks have the same shapes, stepped by the same kernels.

These make a step fast, as measured on the workshop's networks (benchmarks/RESULTS.md):
- small networks are stacked: one batched GEMM, one activation, one softmax for all of them; logistic
  regressions share a single GEMM, see `lockstep.training.joined`;
- a large network's wide layers are cut into blocks of units, which fit caches and which idle cores share;
- GEMMs accumulate gradients directly into the momentum, and apply dropout's scale as their alpha;
- minibatches are gathered, masks drawn, and losses and accuracies computed for a stretch of steps at once;
- a step allocates nothing, and views are made once.

Each GEMM of a batch has the same shape, scalars and alignment as for a run alone, and so have all other
kernels. So a run's numbers don't depend on the runs that it is stacked with. Where a batch would round
differently all the same, see `Layer._can_batch`, it is computed GEMM by GEMM.

Shapes: T steps of a stretch, B minibatch, N instances, F features, C classes, R runs of a stack, O and I a
layer's outputs and inputs, P a run's parameters.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lockstep.training.device import widest
from lockstep.training.layers import ACTIVATIONS, Layer, OnThreads, draw_kept, n_blocks, of_runs, of_steps
from lockstep.training.run import Run
from lockstep.training.stretch import Stretch, aligned


class Stack:
    """R runs of equal `Run.kernels`, at most `Run.per_stack`.

    Args:
        dtype: the dtype that GEMMs compute in.
    """

    def __init__(self, runs: Sequence[Run], dtype: torch.dtype) -> None:
        self.runs = list(runs)
        first = runs[0]
        self._params_RxP = params_RxP = first.params_P.new_zeros(len(runs), len(first.params_P))
        self._grads_RxP = grads_RxP = torch.zeros_like(params_RxP)
        for run, params_P, grad_P in zip(runs, params_RxP, grads_RxP, strict=True):
            run.move_to(params_P, grad_P)
        self._keep = first.optimizer.keep
        self._activation = ACTIVATIONS[first.activation]
        self._layers = [
            Layer(
                w_RxOxJ,
                grad_RxOxJ,
                dtype,
                n_in,
                alpha=1 / (1 - (first.rate if index else first.input_rate)),
                # Independent of the other runs. In bfloat16 oneDNN would copy the inputs for each block.
                blocks=n_blocks(n_out) if first.per_stack == 1 and dtype != torch.bfloat16 else 1,
            )
            for index, (w_RxOxJ, grad_RxOxJ, (n_out, n_in)) in enumerate(
                zip(first.matrices(params_RxP), first.matrices(grads_RxP), first.shapes, strict=True)
            )
        ]
        self._has_weights = first.class_weights_C is not None
        self._has_targets = self._has_weights or first.label_smoothing > 0  # of its own, not the stretch's
        self._on_threads = OnThreads(1)
        self._stretch: Stretch | None = None

    def share(self, threads: int) -> None:
        """Set the intra-op threads that share a large network's updates and the blocks of its layers."""
        for layer in self._layers:
            layer.on_threads.n = min(threads, layer.blocks)
        self._on_threads.n = threads if self.runs[0].per_stack == 1 else 1

    def train(self, stretch: Stretch) -> tuple[Tensor, Tensor]:
        """Step every run on each minibatch of the stretch: forward, backward, update.

        Returns:
            Mean cross-entropy and accuracy of each minibatch before its update, R x T each, in `widest`.
        """
        if stretch is not self._stretch:
            self._allocate(stretch)
        self._draw(stretch.n_steps)
        if self._has_targets:
            self._set_targets(stretch)
        self._take(stretch.n_steps)
        return self._measured(stretch)

    def _take(self, n_steps: int) -> None:
        """Take the first `n_steps` steps of the stretch."""
        for step in range(n_steps):
            self._step(step)

    def _allocate(self, stretch: Stretch) -> None:
        """Allocate buffers for minibatches of the stretch's size, and make each step's views of them."""
        self._stretch = stretch
        n_runs, n_rows, n_steps = len(self.runs), stretch.n_rows, len(stretch.y_TxB)
        for below, layer in zip([None, *self._layers], self._layers, strict=False):
            layer.allocate(n_rows, below, self._activation.keeps_z)
        first, last = self._layers[0], self._layers[-1]
        # Losses are computed in the parameters' dtype, GEMMs may use another.
        params_P = self.runs[0].params_P
        logits = (n_runs, n_steps, last.n_out, n_rows)
        self._logits_TxRxCxB = logits_TxRxCxB = of_steps(params_P, *logits)
        self._softmax_RxCxB = of_runs(params_P, n_runs, last.n_out, n_rows)
        self._copies_logits = last.w_RxOxI.dtype != params_P.dtype
        if self._copies_logits:
            logits_TxRxCxB = of_steps(last.w_RxOxI, *logits)
        # Views that the step on minibatch t reads and writes.
        x_TxBxJ = stretch.x_TxBxJ if self.runs[0].used is None else stretch.used_TxBxJ
        self._x_TxGxBxJ = [x_BxJ.expand(first.n_gemms, -1, -1) for x_BxJ in x_TxBxJ]
        self._x_TxGxJxB = [x_GxBxJ.transpose(1, 2) for x_GxBxJ in self._x_TxGxBxJ]
        self._target_T = list(stretch.target_TxCxB)
        if self._has_targets:
            # Padded, so that a step's kernel takes each run by itself, as it does where runs share a target:
            # in one piece, which elements fill no whole vector would depend on the number of runs.
            n = last.n_out * n_rows
            padded_TxRxU = stretch.target_TxCxB.new_empty(n_steps, n_runs, n + 1)
            self._target_TxRxCxB = padded_TxRxU[:, :, :n].view(n_steps, n_runs, last.n_out, n_rows)
            self._target_T = list(self._target_TxRxCxB)
        if self._has_weights:
            self._scale_TxRxB = stretch.target_TxCxB.new_empty(n_steps, n_runs, n_rows)
            self._scale_T = list(self._scale_TxRxB[:, :, None])
        self._step_logits_RxCxB = list(self._logits_TxRxCxB)
        self._step_logits_GxCxB = [
            logits_RxCxB.view(last.n_gemms, -1, n_rows) for logits_RxCxB in logits_TxRxCxB
        ]
        self._kept_TxL: list[list[Tensor | None]] = [[None] * len(self._layers) for _ in range(n_steps)]
        # A step draws masks of its inputs first, then of each hidden layer's units in turn.
        shapes = [(layer.n_out, n_rows) for layer in self._layers[:-1]] if self.runs[0].rate else []
        n_inputs = aligned(first.n_in * n_rows) if self.runs[0].input_rate else 0
        sizes = [aligned(units * rows) for units, rows in shapes]
        self._kept_RxTxU = first.w_RxOxI.new_empty(n_runs, n_steps, sum(sizes))
        self._kept_RxTxF = first.w_RxOxI.new_empty(n_runs, n_steps, n_inputs)
        self._bits = torch.empty(max(n_steps * sum(sizes), n_inputs) // 4, dtype=torch.int64)
        for step in range(n_steps):
            for index, flat_RxU in enumerate(torch.split(self._kept_RxTxU[:, step], sizes, dim=1)):
                units, rows = shapes[index]
                self._kept_TxL[step][index] = flat_RxU[:, : units * rows].view(n_runs, units, rows)
        if n_inputs:
            self._x_TxFxB = list(x_TxBxJ[:, :, : first.n_in].transpose(1, 2))
            self._kept_TxRxFxB = [
                self._kept_RxTxF[:, step, : first.n_in * n_rows].view(n_runs, first.n_in, n_rows)
                for step in range(n_steps)
            ]

    def _draw(self, n_steps: int) -> None:
        """Draw the masks of the next `n_steps` minibatches, each run's from its own generator."""
        if not (self.runs[0].rate or self.runs[0].input_rate):
            return
        for run, kept_TxU, kept_TxF in zip(self.runs, self._kept_RxTxU, self._kept_RxTxF, strict=True):
            generator = run.dropout_generator
            if not run.input_rate:
                draw_kept(run.rate, generator, self._bits, out=kept_TxU[:n_steps].view(-1))
                continue
            for kept_U, kept_F in zip(kept_TxU[:n_steps], kept_TxF, strict=False):
                draw_kept(run.input_rate, generator, self._bits, out=kept_F)
                if run.rate:
                    draw_kept(run.rate, generator, self._bits, out=kept_U)

    def _set_targets(self, stretch: Stretch) -> None:
        """Write each run's targets: with label smoothing s, (1 - s) times the stretch's, less s / (C B).

        With class weights w, an instance of class y counts w_y / W in place of 1 / B, W being the sum of w_y
        over the minibatch; what is smoothed counts w_c / W for class c.
        """
        target_TxCxB = stretch.target_TxCxB[: stretch.n_steps]
        targets_RxTxCxB = self._target_TxRxCxB[: stretch.n_steps].unbind(1)
        if self._has_weights:
            self._weigh(stretch, target_TxCxB, targets_RxTxCxB)
            return
        for run, smoothed_TxCxB in zip(self.runs, targets_RxTxCxB, strict=True):
            torch.mul(target_TxCxB, 1 - run.label_smoothing, out=smoothed_TxCxB)
            smoothed_TxCxB.sub_(run.label_smoothing / target_TxCxB[0].numel())

    def _weigh(self, stretch: Stretch, target_TxCxB: Tensor, targets_RxTxCxB: Sequence[Tensor]) -> None:
        """Write each run's weighted targets, and the factors of its softmax, which are their sums."""
        w_C = self.runs[0].class_weights_C
        assert w_C is not None
        w_TxB = w_C[stretch.y_TxB[: stretch.n_steps]]
        # The sum of float64 is exact but for its last bits, whichever kernel takes it.
        total_Tx1 = w_TxB.to(widest(w_TxB.device)).sum(1, keepdim=True).to(w_TxB.dtype)
        self._mean_weight_Tx1 = total_Tx1 / stretch.n_rows
        n_classes = len(w_C)
        for run, target, scale_TxB in zip(
            self.runs, targets_RxTxCxB, self._scale_TxRxB[: stretch.n_steps].unbind(1), strict=True
        ):
            smoothed = run.label_smoothing / n_classes
            own_TxB = (1 - run.label_smoothing) * w_TxB / self._mean_weight_Tx1
            torch.mul(target_TxCxB, own_TxB[:, None], out=target)
            torch.div(own_TxB, stretch.n_rows, out=scale_TxB)
            if smoothed:
                target.sub_((smoothed * w_C / total_Tx1)[:, :, None])
                scale_TxB.add_(smoothed * w_C.sum() / total_Tx1)

    def _step(self, step: int) -> None:
        layers, kept_L, keep = self._layers, self._kept_TxL[step], self._keep
        last = layers[-1]
        first_in_GxJxB, first_in_GxBxJ = self._x_TxGxJxB[step], self._x_TxGxBxJ[step]
        if self.runs[0].input_rate:
            torch.mul(self._x_TxFxB[step], self._kept_TxRxFxB[step], out=layers[0].in_RxIxB)
            first_in_GxJxB, first_in_GxBxJ = layers[0].in_GxJxB, layers[0].in_GxBxJ
        in_GxJxB = first_in_GxJxB
        for index, layer in enumerate(layers[:-1]):
            layer.forward(in_GxJxB, layer.z_GxOxB)
            self._activation.forward(layer.z_RxOxB, layer.out_RxOxB)
            if (kept := kept_L[index]) is not None:
                layer.out_RxOxB.mul_(kept)
            in_GxJxB = layers[index + 1].in_GxJxB
        logits_RxCxB = self._step_logits_RxCxB[step]
        last.forward(in_GxJxB, self._step_logits_GxCxB[step])
        if self._copies_logits:
            logits_RxCxB.copy_(self._step_logits_GxCxB[step].view(logits_RxCxB.shape))

        # d loss/d logits = (softmax - target) / B; the target is one-hot without label smoothing.
        target = self._target_T[step]
        torch.softmax(logits_RxCxB, 1, out=self._softmax_RxCxB)
        if self._has_weights:
            torch.addcmul(target, self._softmax_RxCxB, self._scale_T[step], out=last.grad_RxOxB)
        else:
            torch.add(target, self._softmax_RxCxB, alpha=1 / target.shape[-1], out=last.grad_RxOxB)
        for index in range(len(layers) - 1, 0, -1):
            layer, below = layers[index], layers[index - 1]
            layer.accumulate(layer.in_GxBxJ, keep)
            layer.backward()
            self._activation.backward(below.grad_RxOxB, below.out_RxOxB, below.z_RxOxB, kept_L[index - 1])
        layers[0].accumulate(first_in_GxBxJ, keep)
        self._update(step)
        for layer in layers:
            layer.refresh()

    def _update(self, step: int) -> None:
        """Update each run's parameters from its gradients."""
        with self._on_threads:
            for run in self.runs:
                run.update()

    def _measured(self, stretch: Stretch) -> tuple[Tensor, Tensor]:
        logits_TxRxCxB = self._logits_TxRxCxB[: stretch.n_steps]
        y_TxRxB = stretch.y_TxB[: stretch.n_steps, None].expand(-1, len(self.runs), -1)
        loss_TxRxB = self._losses(logits_TxRxCxB, y_TxRxB)
        correct_TxRxB = logits_TxRxCxB.max(2).indices == y_TxRxB  # argmax takes 10 times as long
        dtype = widest(loss_TxRxB.device)
        loss_TxR, accuracy_TxR = (of_TxRxB.to(dtype).mean(2) for of_TxRxB in (loss_TxRxB, correct_TxRxB))
        return loss_TxR.t(), accuracy_TxR.t()

    def _losses(self, logits_TxRxCxB: Tensor, y_TxRxB: Tensor) -> Tensor:
        """Return each instance's loss, T x R x B."""
        cross_entropy = partial(nn.functional.cross_entropy, reduction="none")
        if self._has_targets:
            of_runs = zip(self.runs, logits_TxRxCxB.unbind(1), y_TxRxB.unbind(1), strict=True)
            losses = [
                cross_entropy(x, y, run.class_weights_C, label_smoothing=run.label_smoothing)
                for run, x, y in of_runs
            ]
            loss_TxRxB = torch.stack(losses, dim=1)
            return loss_TxRxB / self._mean_weight_Tx1[:, :, None] if self._has_weights else loss_TxRxB
        # Of each step and run apart: log_softmax rounds differently where B instances fill no whole vector.
        return cross_entropy(logits_TxRxCxB.flatten(0, 1), y_TxRxB.flatten(0, 1)).view(y_TxRxB.shape)
