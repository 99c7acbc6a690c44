"""Runs of any `nn.Module`, stepped by autograd: each is a stack of its own.

Batching such networks gains nothing on a CPU (vmap and grouped convolutions are no faster than one network
after the other, and round differently). Runs share the minibatches that the array gathers.

The parameters lie in one flat vector, as those of other stacks, so the optimizers are the same. What the
network draws comes from torch's global generator, which is set to the run's own while it trains.

Shapes: T steps of a stretch, B minibatch, C classes, P a run's parameters.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.data.images import as_input
from lockstep.training import optim
from lockstep.training.device import widest
from lockstep.training.networks import ModuleNetwork
from lockstep.training.random_streams import own_random_numbers
from lockstep.training.schedule import Schedule
from lockstep.training.stretch import Stretch, aligned


class ModuleRun:
    """A run whose network is a module, see `lockstep.training.run.Run`."""

    per_stack = 1

    def __init__(
        self,
        network: ModuleNetwork,
        optim_config: SGDConfig | AdamConfig,
        dropout_generator: torch.Generator,
        schedule: Schedule,
        label_smoothing: float = 0.0,
        class_weights_C: Tensor | None = None,
    ) -> None:
        device = next(network.parameters()).device
        if device.type == "cuda":  # what the network draws is drawn there
            dropout_generator = torch.Generator(device).manual_seed(dropout_generator.initial_seed())
        self.network, self.dropout_generator = network, dropout_generator
        self.label_smoothing, self.class_weights_C = label_smoothing, class_weights_C
        self.n_classes = network.data.n_classes
        self.kernels = object()  # equal to no other's
        self._trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._sizes = [aligned(parameter.numel()) for parameter in self._trained]
        self.params_P = self._trained[0].new_zeros(sum(self._sizes)).detach()
        self.optimizer = optim.build(optim_config, self.params_P, schedule)
        for parameter, of_params, of_grads in zip(
            self._trained, self._parts(self.params_P), self._parts(self.optimizer.grad_P), strict=True
        ):
            parameter.data = of_params.view(parameter.shape).copy_(parameter.data)
            parameter.grad = of_grads.view(parameter.shape)

    def _parts(self, flat_P: Tensor) -> list[Tensor]:
        parts = torch.split(flat_P, self._sizes)
        return [part[: p.numel()] for part, p in zip(parts, self._trained, strict=True)]

    def state(self) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of the state from which the run resumes with the same bits."""
        tensors = {"params": self.params_P, **self.optimizer.state(), **self._others()}
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        return {**copies, "dropout": self.dropout_generator.get_state()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set the run to a state that `state` returned."""
        self.params_P.copy_(state["params"])
        self.optimizer.load(state)
        for name, tensor in self._others().items():
            tensor.detach().copy_(state[name])
        self.dropout_generator.set_state(state["dropout"])

    def _others(self) -> dict[str, Tensor]:
        """Return what the network has beside the parameters that are trained: buffers, frozen parameters."""
        frozen = {name: p for name, p in self.network.named_parameters() if not p.requires_grad}
        tensors = {**frozen, **dict(self.network.named_buffers())}
        return {f"network.{name}": tensor for name, tensor in tensors.items()}

    def update(self) -> None:
        """Update the parameters from the gradients."""
        self.optimizer.step()


class ModuleStack:
    """A run of a module, see `lockstep.training.stack.Stack`."""

    def __init__(self, run: ModuleRun) -> None:
        self.run, self.runs = run, (run,)

    def share(self, threads: int) -> None:
        """Do nothing: threads would change the bits of a module's kernels; see `trainer.threads`."""

    def train(self, stretch: Stretch) -> tuple[Tensor, Tensor]:
        """Step the run on each minibatch of the stretch: forward, backward, update.

        Returns:
            loss_1xT, accuracy_1xT: as of `Stack.train`.
        """
        run, grad_P, keep = self.run, self.run.optimizer.grad_P, self.run.optimizer.keep
        network, n_features = run.network, run.network.data.n_features
        x_TxBxI = as_input(stretch.x_TxBxJ[: stretch.n_steps, :, :n_features], network.data)
        measured = []
        network.train()
        with own_random_numbers(run.dropout_generator), torch.enable_grad():
            for x_BxI, y_B in zip(x_TxBxI, stretch.y_TxB, strict=False):
                grad_P.mul_(keep) if keep else grad_P.zero_()
                # A copy is aligned, wherever in a stretch the minibatch is; kernels may round by that.
                logits_BxC = network.module(x_BxI.clone())
                loss = nn.functional.cross_entropy(
                    logits_BxC, y_B, run.class_weights_C, label_smoothing=run.label_smoothing
                )
                loss.backward()  # type: ignore[no-untyped-call]
                run.update()
                measured.append((loss.detach(), (logits_BxC.detach().argmax(1) == y_B)))
        losses, right = zip(*measured, strict=True)
        dtype = widest(grad_P.device)
        return torch.stack(losses).to(dtype)[None], torch.stack(right).to(dtype).mean(1)[None]
