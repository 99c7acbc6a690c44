"""The networks as plain `nn.Module`s: the workshop's two, any other module, an ensemble of them.

The initial weights are drawn from `generator`, or without one from torch's global generator.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lockstep.config.errors import Refused
from lockstep.config.model_config import CNNConfig, LogRegConfig, MLPConfig, ModuleConfig
from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.data.images import as_input
from lockstep.training import fast_layers, network_code, random_streams
from lockstep.training.random_streams import own_random_numbers

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class LogisticRegression(nn.Module):
    """Multiclass logistic regression: logits xW + b, W Xavier-uniform, b zeros."""

    def __init__(self, n_features: int, n_classes: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(n_features, n_classes))
        self.b = nn.Parameter(torch.zeros(n_classes))
        nn.init.xavier_uniform_(self.W, generator=generator)

    def forward(self, x_BxF: Tensor) -> Tensor:
        """Return logits, B x C."""
        return joint_logits([self], x_BxF)[0]


def joint_logits(networks: Sequence[LogisticRegression], x_BxF: Tensor) -> Tensor:
    """Return R networks' logits from one GEMM, R x B x C. See `joined` for the bits of each.

    Classes lie along the GEMM's first axis, instances along its last, as that is the fastest.
    """
    w_CxF = torch.cat([network.W.t() for network in networks])
    b_RxC = torch.stack([network.b for network in networks])
    logits_RxCxB: Tensor = (w_CxF @ x_BxF.t()).view(*b_RxC.shape, -1)
    return logits_RxCxB.transpose(1, 2) + b_RxC[:, None]


class MultilayerPerceptron(nn.Module):
    """A multilayer perceptron: linear, activation, dropout per hidden layer, then linear to the logits.

    `input_dropout` drops inputs. With a `max_norm`, call `constrain()` after each update of the weights.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        hidden_dims: Sequence[int] = (256, 100),
        dropout: float = 0.25,
        activation: str = "relu",
        generator: torch.Generator | None = None,
        max_norm: float | None = None,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.max_norm = max_norm
        self.input_dropout = nn.Dropout(input_dropout)
        widths = [n_features, *hidden_dims]
        self.hidden = nn.ModuleList(_linear(n_in, n_out, generator) for n_in, n_out in pairwise(widths))
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.output = _linear(widths[-1], n_classes, generator)

    def forward(self, x_BxF: Tensor) -> Tensor:
        """Return logits, B x C."""
        h = self.input_dropout(x_BxF)
        for layer in self.hidden:
            h = self.dropout(self.activation(layer(h)))
        logits: Tensor = self.output(h)
        return logits

    @torch.no_grad()
    def constrain(self) -> None:
        """Scale each hidden unit's incoming weights to an L2 norm <= `max_norm` (Srivastava et al., 2014)."""
        if self.max_norm is not None:
            for weight in self.hidden.parameters():
                if weight.ndim == 2:  # not biases
                    weight.renorm_(p=2, dim=0, maxnorm=self.max_norm)

    @torch.no_grad()
    def representations(self, x_NxF: Tensor) -> Iterator[Tensor]:
        """Yield the activations of each hidden layer in turn, N x H, without dropout."""
        h = x_NxF
        for layer in self.hidden:
            h = self.activation(layer(h))
            yield h


class ConvolutionalNetwork(nn.Module):
    """Convolutions, each followed by batch normalisation, ReLU and max-pooling by 2; then linear layers.

    Dropout is before each linear layer, ReLU after each but the last. Raises ValueError if an image is too
    small to be pooled so often.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        n_classes: int,
        channels: Sequence[int] = (32, 64),
        kernel: int = 3,
        batch_norm: bool = True,
        hidden_dims: Sequence[int] = (128,),
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        depth, height, width = input_shape
        if min(height, width) >> len(channels) == 0:
            raise ValueError(
                f"{len(channels)} convolutions with pooling by 2 leave nothing of {height} x {width}"
            )
        self.convolutions = nn.ModuleList()
        for n_in, n_out in pairwise([depth, *channels]):
            self.convolutions.append(nn.Conv2d(n_in, n_out, kernel, padding="same", bias=not batch_norm))
        normalised = channels if batch_norm else ()
        self.norms = nn.ModuleList(nn.BatchNorm2d(n_channels) for n_channels in normalised)
        self.pool = nn.MaxPool2d(2)
        pixels = (height >> len(channels)) * (width >> len(channels))
        widths = [channels[-1] * pixels, *hidden_dims, n_classes]
        self.linear = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BxCxHxW: Tensor) -> Tensor:
        """Return logits, B x C."""
        h = x_BxCxHxW
        for layer, convolution in enumerate(self.convolutions):
            h = convolution(h)
            if self.norms:
                h = self.norms[layer](h)
            h = self.pool(torch.relu(h))
        h = h.flatten(1)
        for linear in self.linear[:-1]:
            h = torch.relu(linear(self.dropout(h)))
        logits: Tensor = self.linear[-1](self.dropout(h))
        return logits


class ModuleNetwork(nn.Module):
    """A module that sees instances in their own shape, called with flat rows as the other networks.

    Attributes:
        module: whose parameters and buffers have the names that users see.
    """

    def __init__(self, module: nn.Module, data: DataDescription) -> None:
        super().__init__()
        self.module, self.data = module, data

    def forward(self, x_BxF: Tensor) -> Tensor:
        """Return logits, B x C."""
        logits_BxC: Tensor = self.module(self.seen(x_BxF))
        return logits_BxC

    def seen(self, x_BxF: Tensor) -> Tensor:
        """Return rows as the module sees them."""
        return as_input(x_BxF, self.data)


Network = LogisticRegression | MultilayerPerceptron | ModuleNetwork


def named(network: Network) -> nn.Module:
    """Return the module that gives a network's parameters the names that users see."""
    return network.module if isinstance(network, ModuleNetwork) else network


class Ensemble(nn.Module):
    """The weighted average of networks' probabilities, in evaluation mode."""

    def __init__(self, networks: Sequence[Network], weights: Sequence[float]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.weights = tuple(weights)
        self.eval()

    def forward(self, x_BxF: Tensor) -> Tensor:
        """Return probabilities, B x C, in the dtype of the rows."""
        total = torch.zeros((), dtype=x_BxF.dtype, device=x_BxF.device)
        for network, weight in zip(self.networks, self.weights, strict=True):
            logits_BxC = network(x_BxF.to(next(network.parameters()).dtype))
            total = total + weight * logits_BxC.softmax(dim=1).to(x_BxF.dtype)
        return total


def initial(config: RunConfig, data: DataDescription) -> Network:
    """Return a run's network before its first iteration.

    Raises:
        Refused: if it is the user's own, and its code raises an error or was not named by a command.
    """
    generator = random_streams.generator(config.seed, "init")
    if isinstance(config.model, LogRegConfig | MLPConfig):
        return build(config.model, data.n_features, data.n_classes, generator)
    with own_random_numbers(generator):
        return ModuleNetwork(fast_layers.use(_module(config.model, data)), data)


def _module(config: CNNConfig | ModuleConfig, data: DataDescription) -> nn.Module:
    if isinstance(config, ModuleConfig):
        return network_code.of(config).build(config.settings, data)
    if len(data.input_shape) != 3:
        raise Refused(
            [f"model=cnn: needs images; an instance of {data.name} has the shape {data.feature_shape}"]
        )
    depth, height, width = data.input_shape
    try:
        return ConvolutionalNetwork(
            (depth, height, width), data.n_classes, **config.model_dump(exclude={"name"})
        )
    except ValueError as error:
        raise Refused([f"model.channels={list(config.channels)}: {error}"]) from error


def build(
    config: LogRegConfig | MLPConfig, n_features: int, n_classes: int, generator: torch.Generator
) -> LogisticRegression | MultilayerPerceptron:
    """Return the network of linear layers that `config` describes, initialised from `generator`."""
    if isinstance(config, LogRegConfig):
        return LogisticRegression(n_features, n_classes, generator)
    return MultilayerPerceptron(
        n_features,
        n_classes,
        config.hidden_dims,
        config.dropout,
        config.activation,
        generator,
        config.max_norm,
        config.input_dropout,
    )


def load_exporter() -> None:
    """Load the modules that `torch.export` imports on first use, which takes one to two seconds."""
    torch.compiler.reset()


def _linear(n_in: int, n_out: int, generator: torch.Generator | None) -> nn.Linear:
    """Return an nn.Linear with its default initialisation, drawn from `generator`.

    It draws as `nn.Linear.reset_parameters`: U(-1/sqrt(n_in), 1/sqrt(n_in)) for weights and biases.
    """
    # nn.utils.skip_init does the same, but loads SymPy, which takes 0.4 s.
    layer = nn.Linear(n_in, n_out, device="meta")
    layer.weight, layer.bias = nn.Parameter(torch.empty(n_out, n_in)), nn.Parameter(torch.empty(n_out))
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(n_in)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer
