"""A check of a module before a sweep trains it: that it fits the data, and that a run of it can be resumed.

Shapes: B minibatch, C classes, F features.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lockstep.config.errors import Refused
from lockstep.config.model_config import ModuleConfig
from lockstep.config.schema import RunConfig
from lockstep.data.datasets import Dataset
from lockstep.training import networks, schedule
from lockstep.training.device import cpu_settings
from lockstep.training.module_stack import ModuleRun, ModuleStack
from lockstep.training.network_code import located
from lockstep.training.networks import ModuleNetwork
from lockstep.training.random_streams import generator, own_random_numbers
from lockstep.training.stretch import Stretch

STEPS = 2
"""Steps before and after the state is saved and loaded: what a step changes is seen in the next."""


@dataclass(frozen=True)
class Measured:
    """What a run of a module needs.

    Attributes:
        n_parameters: that are trained.
        step_seconds: of a minibatch, forward, backward and update, on the run's threads.
        row_seconds: of evaluating one instance.
    """

    n_parameters: int
    step_seconds: float
    row_seconds: float


def measure(config: RunConfig, dataset: Dataset) -> Measured:
    """Check a run's module on its data, and measure it.

    Raises:
        Refused: if it can't be built, returns no logits, or keeps state that a checkpoint would not have.
    """
    with cpu_settings(torch.device("cpu"), threads=config.trainer.threads):
        return _Check(config, dataset).measured()


def _sizes(config: RunConfig, dataset: Dataset) -> tuple[int, int]:
    """Return the instances of a minibatch, and of an epoch's last one."""
    data, n_train = config.data, dataset.description.n_train
    n_rows = min(data.batch_size, n_train)
    left = (n_train - data.val_size) % data.batch_size
    return n_rows, n_rows if data.drop_last or not left else left


class _Check:
    """A module, a few of its instances, and how its messages call it."""

    def __init__(self, config: RunConfig, dataset: Dataset) -> None:
        self._config, self._data, self._dtype = (
            config,
            dataset.description,
            getattr(torch, config.trainer.precision),
        )
        n_rows, self._n_last = _sizes(config, dataset)
        self._x_NxF, self._y_N = dataset.x_train[: 2 * n_rows].to(self._dtype), dataset.y_train[: 2 * n_rows]
        self._n_rows = n_rows
        self._called, self._file = f"model={config.model.name}", ""
        if isinstance(model := config.model, ModuleConfig):
            settings = ", ".join(f"{key}={value!r}" for key, value in model.settings.items())
            self._file = model.path.rpartition(":")[0]
            self._called = f"model.path={model.path}: {model.source.partition('@')[0]}({settings})"

    def measured(self) -> Measured:
        """Return what it needs. Raise Refused if it can't be trained."""
        run, again = self._run(), self._run()
        if not _equal(run.state(), again.state()):
            raise self._refused("its initial weights differ each time it is built; draw them by torch alone")
        row_seconds = self._checked_logits(run.network)
        try:
            step_seconds = self._train(run)
            state = run.state()
            self._train(run)
            again.load(state)
            self._train(again)
        except Exception as error:
            raise self._refused(f"can't be trained: {located(error, self._file)}") from error
        if not _equal(run.state(), again.state()):
            raise self._refused(
                "keeps state outside of its parameters and buffers, or draws random numbers that are not"
                " torch's, so a resumed run would get other numbers; use register_buffer and torch.rand"
            )
        try:
            self._step(run, 0, self._n_last)
        except Exception as error:
            raise self._refused(
                f"can't be trained on an epoch's last minibatch, which has {_instances(self._n_last)};"
                f" data.drop_last=true leaves it out: {located(error, self._file)}"
            ) from error
        return Measured(sum(p.numel() for p in run.network.parameters()), step_seconds, row_seconds)

    def _run(self) -> ModuleRun:
        network = networks.initial(self._config, self._data)
        assert isinstance(network, ModuleNetwork)
        tensors = [*network.parameters(), *network.buffers()]
        if any(torch.nn.parameter.is_lazy(tensor) for tensor in tensors):
            raise self._refused("has lazy layers; give their sizes, which input_shape and n_classes tell")
        if any(tensor.device.type != "cpu" for tensor in tensors):
            raise self._refused("puts parameters on a device of its own; leave them where they are made")
        if any(tensor.is_complex() for tensor in tensors):
            raise self._refused(
                "has complex parameters or buffers; hold real ones, which torch.view_as_complex can take"
            )
        network.to(self._dtype)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise self._refused("has no parameters that are trained")
        rate = schedule.Constant(self._config.optim.lr)
        return ModuleRun(network, self._config.optim, generator(0, "dropout"), rate)

    def _checked_logits(self, network: ModuleNetwork) -> float:
        """Return the seconds that an instance takes, once logits are returned, the same each time."""
        found, random_numbers = [], generator(0, "dropout")  # which go on from call to call
        for n_rows in (1, self._n_rows, self._n_rows):  # one: any number may be left to evaluate
            try:
                with torch.no_grad(), own_random_numbers(random_numbers):
                    started = time.perf_counter()
                    found.append(network.eval()(self._x_NxF[:n_rows]))
                    seconds = time.perf_counter() - started
            except Exception as error:
                shape = " x ".join(map(str, self._data.input_shape))
                raise self._refused(
                    f"can't be called with {_instances(n_rows)} of {shape}: {located(error, self._file)}"
                ) from error
            self._check_logits(found[-1], n_rows)
        if not torch.equal(*found[1:]):
            raise self._refused("gives the same instances other logits each time, in evaluation mode")
        return seconds / self._n_rows

    def _check_logits(self, logits: object, n_rows: int) -> None:
        wanted = (n_rows, self._data.n_classes)
        got = type(logits).__name__
        if isinstance(logits, Tensor):
            if tuple(logits.shape) == wanted and logits.dtype == self._dtype:
                return
            got = f"{tuple(logits.shape)}, {logits.dtype}"
        raise self._refused(
            f"returns {got} for {_instances(n_rows)}; allowed: logits {wanted}, {self._dtype}"
        )

    def _train(self, run: ModuleRun) -> float:
        """Take STEPS steps; return the seconds of the last."""
        for step in range(STEPS):
            start = step % 2 * self._n_rows if len(self._x_NxF) == 2 * self._n_rows else 0
            seconds = self._step(run, start, self._n_rows)
        return seconds

    def _step(self, run: ModuleRun, start: int, n_rows: int) -> float:
        """Take a step on some instances; return its seconds."""
        stretch = Stretch(n_rows, self._data.n_classes, self._x_NxF)
        stretch.gather(self._x_NxF, self._y_N, torch.arange(start, start + n_rows)[None])
        started = time.perf_counter()
        ModuleStack(run).train(stretch)
        return time.perf_counter() - started

    def _refused(self, problem: str) -> Refused:
        return Refused([f"{self._called}: {problem}"])


def _instances(n: int) -> str:
    return f"{n} instance{'s' if n > 1 else ''}"


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Tell whether two states have the same bits; NaNs of one pattern are equal."""
    return one.keys() == other.keys() and all(
        tensor.shape == other[name].shape
        and tensor.contiguous().numpy().tobytes() == other[name].contiguous().numpy().tobytes()
        for name, tensor in one.items()
    )
