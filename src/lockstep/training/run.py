"""A run of a network of linear layers: its parameters, optimizer and generator, as the array keeps them.

Shapes: F features, C classes, O and I a layer's outputs and inputs, J I with bias and padding, P a run's
parameters.
"""

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor, nn

from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.data.used_features import UsedFeatures
from lockstep.training import optim
from lockstep.training.batched_update import rule_of
from lockstep.training.networks import LogisticRegression, MultilayerPerceptron
from lockstep.training.schedule import Schedule
from lockstep.training.stretch import aligned

STACK_BYTES = 2**20
"""The most bytes of a stack's parameters and gradients on the CPU: half a core's level-2 cache (in 2026)."""

DEVICE_STACK_BYTES = 2**30
"""The same on a GPU, where every stack costs kernel launches of its own."""


class Run:
    """A run of the array: its network, optimizer, and generator of dropout masks.

    Args:
        used: the features that its minibatches use, None if all.

    Attributes:
        used: None too if the network needs all: to drop inputs, or to bound the norm of their weights.
        shapes: outputs and inputs of each layer's GEMMs.
        kernels: shapes, and the scalars that kernels share; runs that are equal in it can be stacked.
        label_smoothing, class_weights_C: of the loss that is minimised, as in torch.nn.CrossEntropyLoss.
        per_stack: the most runs of this kind in a stack.
        params_P: the parameters, layer by layer, O x J each: a row is an output's weights, bias, padding.
    """

    def __init__(
        self,
        network: LogisticRegression | MultilayerPerceptron,
        optim_config: SGDConfig | AdamConfig,
        dropout_generator: torch.Generator,
        schedule: Schedule,
        label_smoothing: float = 0.0,
        class_weights_C: Tensor | None = None,
        used: UsedFeatures | None = None,
    ) -> None:
        self.network, self.dropout_generator = network, dropout_generator
        self.label_smoothing, self.class_weights_C = label_smoothing, class_weights_C
        if isinstance(network, LogisticRegression):
            self._stored = [(network.W, network.W.data.t(), network.b)]
            self.rate, self.input_rate, self.activation = 0.0, 0.0, nn.ReLU  # unused: no hidden layer
        else:
            linear = [*network.hidden, network.output]
            self._stored = [(layer.weight, layer.weight.data, layer.bias) for layer in linear]
            self.rate, self.input_rate = network.dropout.p, network.input_dropout.p
            self.activation = type(network.activation)
            if self.input_rate or network.max_norm is not None:
                used = None
        w_OxF = self._stored[0][1]
        if w_OxF.is_cuda and optim_config.weight_decay:
            used = None  # a DeviceStack updates only what GEMMs use
        self.used = used
        weights = [w_OxI for _, w_OxI, _ in self._stored]
        if used is not None:
            weights[0] = w_OxF[:, used.used_U]
        self.n_classes = len(weights[-1])
        self.shapes = [(w_OxI.shape[0], w_OxI.shape[1]) for w_OxI in weights]
        self.params_P = torch.cat(
            [
                nn.functional.pad(
                    torch.column_stack([w_OxI, bias.data]), (0, aligned(n_in + 1) - n_in - 1)
                ).flatten()
                for w_OxI, (_, n_in), (_, _, bias) in zip(weights, self.shapes, self._stored, strict=True)
            ]
        )
        self.optimizer = optim.build(optim_config, self.params_P, schedule)
        # The gradient of weights that no feature uses is 0, so they change only where they decay.
        self._blank: optim.Optimizer | None = None
        if used is not None and optim_config.weight_decay:
            self._blank = optim.build(optim_config, w_OxF[:, used.blank_V].flatten(), schedule)
        scalars = (self.rate, self.input_rate, self.optimizer.keep)
        kinds: tuple[Hashable, ...] = (label_smoothing > 0, class_weights_C is None, used is None)
        if w_OxF.is_cuda:  # whose update has kernels for all runs, too
            kinds += (rule_of(optim_config), getattr(network, "max_norm", None))
        self.kernels: Hashable = (tuple(self.shapes), self.activation, scalars, kinds)
        limit = STACK_BYTES if self.params_P.device.type == "cpu" else DEVICE_STACK_BYTES
        self.per_stack = max(1, limit // (2 * self.params_P.nbytes))

    def update(self) -> None:
        """Update the parameters from the gradients."""
        self.optimizer.step()
        if self._blank is not None:
            self._blank.grad_P.mul_(self._blank.keep)
            self._blank.step()
        if isinstance(self.network, MultilayerPerceptron):
            self.network.constrain()

    def state(self) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of the state from which the run resumes with the same bits."""
        tensors = {"params": self.params_P, **self.optimizer.state()}
        if self._blank is not None:
            of_blank = {"params": self._blank.params_P, **self._blank.state()}
            tensors |= {f"blank.{name}": tensor for name, tensor in of_blank.items()}
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        return {**copies, "dropout": self.dropout_generator.get_state()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set the run to a state that `state` returned."""
        self.params_P.copy_(state["params"])
        self.optimizer.load(state)
        if self._blank is not None:
            self._blank.params_P.copy_(state["blank.params"])
            self._blank.load({name: state[f"blank.{name}"] for name in self._blank.state()})
        self.dropout_generator.set_state(state["dropout"])
        self.publish()

    def matrices(self, flat_XxP: Tensor) -> list[Tensor]:
        """Return each layer's part of a tensor laid out like flat parameters, as X x O x J."""
        sizes = [n_out * aligned(n_in + 1) for n_out, n_in in self.shapes]
        return [
            part.view(*part.shape[:-1], n_out, -1)
            for part, (n_out, _) in zip(torch.split(flat_XxP, sizes, dim=-1), self.shapes, strict=True)
        ]

    def move_to(self, params_P: Tensor, grad_P: Tensor) -> None:
        """Move parameters and gradients into a stack's row; the network's parameters become views of it.

        The first layer's weights don't where not all features are used, see `publish`.
        """
        self.params_P = params_P.copy_(self.params_P)
        self.optimizer.move_to(params_P, grad_P)
        for (weight, _, bias), (_, n_in), w_OxJ in zip(
            self._stored, self.shapes, self.matrices(params_P), strict=True
        ):
            bias.data = w_OxJ[:, n_in]
            if self.used is None or weight is not self._stored[0][0]:
                data = w_OxJ[:, :n_in]
                weight.data = data.t() if isinstance(self.network, LogisticRegression) else data

    def publish(self) -> None:
        """Copy the first layer's weights to the network's own, whose columns are in the features' order."""
        if self.used is not None:
            _, w_OxF, _ = self._stored[0]
            w_OxF[:, self.used.used_U] = self.matrices(self.params_P)[0][:, : len(self.used.used_U)]
            if self._blank is not None:
                w_OxF[:, self.used.blank_V] = self._blank.params_P.view(len(w_OxF), -1)
