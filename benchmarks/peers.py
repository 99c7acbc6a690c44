"""The peers that Lockstep is compared with. Each trains one epoch of K runs on MNIST and evaluates it.

All use minibatches of 64 (937 steps), SGD with lr 0.01 and momentum 0.9, and classify the 10,000 test images
at the end. Unless a docstring says otherwise, they keep every minibatch's loss and accuracy, as Lockstep
does, and read the data from memory. Each library uses its default number of threads: all cores. Call each
peer once before timing it: the first call loads, compiles and warms up.
"""

import copy
import functools
import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
import torchvision
from platformdirs import user_cache_path
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

from lockstep.config.data_config import DownloadedConfig
from lockstep.data.datasets import load
from lockstep.training.networks import LogisticRegression, MultilayerPerceptron

Model = Literal["logreg", "mlp"]

STREAM = DownloadedConfig(name="mnist", batch_size=64, drop_last=True, val_size=0, shuffle_seed=0, root=None)
BATCH, STEPS = 64, 60_000 // 64
LR, MOMENTUM, DROPOUT = 0.01, 0.9, 0.25
CORES = os.cpu_count() or 1
HIDDEN_DIMS: dict[Model, tuple[int, ...]] = {"logreg": (), "mlp": (256, 100)}


def workshop_loop(model: Model | type[nn.Module]) -> None:
    """Train as the workshop does: torchvision, ToTensor, DataLoader; reads each minibatch's accuracy.

    Args:
        model: one of the workshop's, or a class of networks of images.
    """
    data = [
        torchvision.datasets.MNIST(user_cache_path("lockstep"), train=part, transform=ToTensor())
        for part in (True, False)
    ]
    batches = DataLoader(data[0], batch_size=BATCH, shuffle=True, drop_last=True)
    test_batches = DataLoader(data[1], batch_size=BATCH)
    criterion = nn.CrossEntropyLoss()
    module = nn.Sequential(nn.Flatten(), _module(model)) if isinstance(model, str) else model((1, 28, 28), 10)
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM)
    for x, y in batches:
        logits = module(x)
        loss = criterion(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _accuracy(logits, y).item()
    module.eval()
    with torch.no_grad():
        for x, y in test_batches:
            (module(x).argmax(dim=1) == y).sum().item()


def eager_loop(model: Model) -> None:
    """Train with a tight eager loop: rows of one tensor, fused SGD, no value read before the end.

    On 2 cores, torch's default of two intra-op threads is faster than one, for the MLP by a fifth.
    """
    data = load(STREAM)
    module, criterion = _module(model), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=MOMENTUM, fused=True)
    losses, accuracies = [], []
    for indices_B in _minibatches():
        x, y = data.x_train[indices_B], data.y_train[indices_B]
        logits = module(x)
        loss = criterion(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        accuracies.append(_accuracy(logits, y))
    torch.stack(losses + accuracies).tolist()
    module.eval()
    with torch.no_grad():
        _accuracy(module(data.x_test), data.y_test).item()


def scikit_learn(model: Model) -> None:
    """Train MLPClassifier in float32, without dropout; without hidden layers it is logistic regression.

    It keeps the epoch's loss, but no minibatch's loss or accuracy.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    data = load(STREAM)
    network = MLPClassifier(
        HIDDEN_DIMS[model],
        solver="sgd",
        alpha=0.0,
        batch_size=BATCH,
        learning_rate_init=LR,
        max_iter=1,
        momentum=MOMENTUM,
        nesterovs_momentum=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(data.x_train[: STEPS * BATCH].numpy(), data.y_train[: STEPS * BATCH].numpy())
    network.score(data.x_test.numpy(), data.y_test.numpy())


def vmap(model: Model, k: int = 1) -> None:
    """Train K modules stacked by torch.func, on the same minibatches, each with its own dropout."""
    data = load(STREAM)
    modules = [_module(model) for _ in range(k)]
    skeleton = copy.deepcopy(modules[0]).to("meta")
    parameters, _ = stack_module_state(modules)
    parameters = {name: stacked.detach() for name, stacked in parameters.items()}
    momenta = {name: torch.zeros_like(stacked) for name, stacked in parameters.items()}

    def loss_of(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(skeleton, parameters, (x,))
        return nn.functional.cross_entropy(logits, y), _accuracy(logits, y)

    def accuracy_of(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return _accuracy(functional_call(skeleton, parameters, (x,)), y)

    differentiate = torch.vmap(
        grad_and_value(loss_of, has_aux=True), in_dims=(0, None, None), randomness="different"
    )
    measured = []
    for indices_B in _minibatches():
        gradients, loss_and_accuracy = differentiate(
            parameters, data.x_train[indices_B], data.y_train[indices_B]
        )
        for name, gradient in gradients.items():
            momenta[name].mul_(MOMENTUM).add_(gradient)
            parameters[name].sub_(momenta[name], alpha=LR)
        measured.extend(loss_and_accuracy)
    torch.stack(measured).tolist()
    skeleton.eval()
    torch.vmap(accuracy_of, in_dims=(0, None, None))(parameters, data.x_test, data.y_test).tolist()


def jax_is_there() -> bool:
    """Return whether JAX, which Lockstep does not need, is installed."""
    return importlib.util.find_spec("jax") is not None


def jax_scan(model: Model, k: int, vmapped: bool) -> None:
    """Train by a compiled scan over the epoch's steps, with one permutation for all K runs.

    Either all runs are vmapped, or each is a scan of its own, as many at the same time as there are cores;
    for MLPs the latter is nearly twice as fast. The first call compiles.

    Tried and faster: weights as outputs x inputs; one mask drawn for both hidden layers; a permutation drawn
    by numpy (jax.random's takes 25 ms). Tried, no faster: rbg instead of threefry, dropout from 8 or 16
    random bits, masks drawn in advance, unrolling, rows gathered in advance, K runs side by side in one step,
    XLA's CPU flags. No buffer can be donated, because parameters are created inside.
    """
    import jax
    import jax.numpy as jnp

    stacks = 1 if vmapped else k
    generator = np.random.default_rng()
    order_TxB = generator.permutation(60_000)[: STEPS * BATCH].reshape(STEPS, BATCH).astype(np.int32)
    keys = jnp.array_split(jax.random.split(jax.random.key(generator.integers(2**31)), k), stacks)
    epochs = [_jax_epoch(model, len(stack)) for stack in keys]
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(lambda epoch, stack: epoch(stack, order_TxB), epochs, keys))


def matmul_peak(threads: int) -> float:
    """Return the GFLOP/s of torch.mm on 2048 x 2048 float32 matrices, the best of ten."""
    n, before = 2048, torch.get_num_threads()
    a, b = torch.randn(n, n), torch.randn(n, n)
    seconds = []
    torch.set_num_threads(threads)
    try:
        for _ in range(10):
            started = time.perf_counter()
            torch.mm(a, b)
            seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return 2 * n**3 / min(seconds) / 1e9


def _module(model: Model) -> nn.Module:
    if model == "logreg":
        return LogisticRegression(784, 10)
    return MultilayerPerceptron(784, 10, HIDDEN_DIMS[model], DROPOUT)


def _accuracy(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == y).float().mean()


def _minibatches() -> tuple[Tensor, ...]:
    return torch.randperm(60_000).split(BATCH)[:STEPS]


@functools.cache
def _jax_data() -> tuple[Any, ...]:
    import jax.numpy as jnp

    data = load(STREAM)
    tensors = (data.x_train, data.y_train.int(), data.x_test, data.y_test.int())
    return tuple(jnp.asarray(tensor.numpy()) for tensor in tensors)


@functools.cache
def _jax_epoch(model: Model, runs: int) -> Callable[[Any, Any], Any]:
    """Compile: the runs' keys, rows T x B -> test accuracies, and each minibatch's loss and accuracy."""
    import jax
    import jax.numpy as jnp

    widths = (784, *HIDDEN_DIMS[model], 10)

    def initial(key: Any, n_in: int, n_out: int) -> tuple[Any, Any]:
        of_W, of_b = jax.random.split(key)
        uniform = functools.partial(jax.random.uniform, minval=-(n_in**-0.5), maxval=n_in**-0.5)
        return uniform(of_W, (n_out, n_in)), uniform(of_b, (n_out,))

    def logits_of(parameters: list[Any], x: Any, kept: Any = None) -> Any:
        first = 0
        for W, b in parameters[:-1]:
            x = jax.nn.relu(x @ W.T + b)
            if kept is not None:
                x = jnp.where(kept[:, first : first + len(b)], x / (1 - DROPOUT), 0)
                first += len(b)
        W, b = parameters[-1]
        return x @ W.T + b

    def loss_of(parameters: list[Any], key: Any, x: Any, y: Any) -> tuple[Any, Any]:
        kept = jax.random.bernoulli(key, 1 - DROPOUT, (BATCH, sum(widths[1:-1])))
        logits = logits_of(parameters, x, kept)
        log_likelihood = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1)
        return -log_likelihood.mean(), (logits.argmax(axis=1) == y).mean()

    def epoch(key: Any, order_TxB: Any, x_train: Any, y_train: Any, x_test: Any, y_test: Any) -> Any:
        def step(state: tuple[Any, Any], key_and_rows: tuple[Any, Any]) -> tuple[Any, Any]:
            (parameters, momenta), (key, rows) = state, key_and_rows
            differentiate = jax.value_and_grad(loss_of, has_aux=True)
            measured, gradients = differentiate(parameters, key, x_train[rows], y_train[rows])
            momenta = jax.tree.map(lambda m, g: MOMENTUM * m + g, momenta, gradients)
            return (jax.tree.map(lambda p, m: p - LR * m, parameters, momenta), momenta), measured

        of_start, of_dropout = jax.random.split(key)
        of_layers = jax.random.split(of_start, len(widths) - 1)
        parameters = [initial(*layer) for layer in zip(of_layers, widths, widths[1:], strict=False)]
        start = (parameters, jax.tree.map(jnp.zeros_like, parameters))
        (parameters, _), measured = jax.lax.scan(
            step, start, (jax.random.split(of_dropout, STEPS), order_TxB)
        )
        return (logits_of(parameters, x_test).argmax(axis=1) == y_test).mean(), measured

    # A batch dimension costs time even where it is 1.
    of_runs = jax.vmap(epoch, in_axes=(0, *[None] * 5)) if runs > 1 else lambda keys, *_: epoch(keys[0], *_)
    data, rows_TxB = _jax_data(), jnp.zeros((STEPS, BATCH), jnp.int32)
    compiled = jax.jit(of_runs).lower(jax.random.split(jax.random.key(0), runs), rows_TxB, *data).compile()
    return lambda keys, order_TxB: jax.block_until_ready(compiled(keys, order_TxB, *data))
