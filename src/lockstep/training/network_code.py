"""The code of the user's own networks: a class or function in a file, run only when a command names it.

The file is read once, and these bytes are run, hashed, given to workers, and kept with each run. So it is one
file: other files of the user's, which it would import, are not part of its hash.
"""

import ast
import hashlib
import importlib.util
import inspect
import json
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.config.errors import Refused, nearest
from lockstep.config.model_config import ModuleConfig
from lockstep.config.schema import RunConfig
from lockstep.data.description import DataDescription
from lockstep.training import network_arguments
from lockstep.training.network_arguments import FROM_DATA, Arguments

if TYPE_CHECKING:  # torch is loaded where code is run
    from torch import nn

_known: dict[str, "NetworkCode"] = {}


@dataclass(frozen=True)
class NetworkCode:
    """A class or function in the content of a file, which returns a network.

    Attributes:
        file: the path that the content was read from, for messages.
        name: of the class or function.
    """

    file: str
    name: str
    content: bytes

    @property
    def source(self) -> str:
        """What identifies it: its name, and the SHA-256 of the content."""
        return f"{self.name}@{hashlib.sha256(self.content).hexdigest()}"

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that are settings, plain data, with these given.

        Raises:
            Refused: with a message for each that is unknown, mistyped or missing.
        """
        arguments, problems, settings = _arguments(self), [], dict[str, Any]()
        for key, value in given.items():
            if not arguments.has(key):
                has = (
                    f"it has {', '.join(arguments.named)}"
                    if arguments.named
                    else "it has none that can be set"
                )
                shown = json.dumps(value) if isinstance(value, bool | None) else value
                hint = nearest(key, arguments.named)
                problems.append(f"model.{key}={shown}: not an argument of {self.name}; {has}{hint}")
                continue
            try:
                settings[key] = arguments[key].plain(value)
            except ValueError as error:
                problems.append(f"model.{key}={value}: {error}")
        for key, argument in arguments.named.items():
            if argument.is_required and key not in given:
                given_by_data = f"the data gives {' and '.join(FROM_DATA)}"
                problems.append(
                    f"model.{key}: required by {self.name}; give it as model.{key}=<value> ({given_by_data})"
                )
            settings.setdefault(key, argument.default)
        if problems:
            raise Refused(sorted(problems))
        order = [*arguments.named, *sorted(settings.keys() - arguments.named.keys())]
        return {key: settings[key] for key in order}

    def build(self, settings: Mapping[str, Any], data: DataDescription) -> "nn.Module":
        """Return the network for a data set, initialised from torch's global generator.

        Raises:
            Refused: if the code raises an error, or returns no network.
        """
        from torch import nn

        arguments = _arguments(self)
        values = {key: arguments[key].value(value) for key, value in settings.items()}
        of_data = {"input_shape": data.input_shape, "n_classes": data.n_classes}
        names = inspect.signature(_builder(self)).parameters
        values |= {name: of_data[name] for name in FROM_DATA if name in names}
        try:
            network = _builder(self)(**values)
        except Exception as error:
            raise Refused([f"{_called(self, settings)}: {located(error, self.file)}"]) from error
        if not isinstance(network, nn.Module):
            kind = type(network).__name__
            raise Refused([f"{_called(self, settings)}: returns {kind}; allowed: a torch.nn.Module"])
        return network


def read(path: str) -> NetworkCode:
    """Read and run the code at a path, `file.py:Name`, and know it from now on in this process.

    Raises:
        Refused: if it can't be read or run, or has no such class or function.
    """
    code = content(path)
    add([code])
    return code


@cache
def content(path: str) -> NetworkCode:
    """Read the code at a path; don't run it.

    Raises:
        Refused: if it can't be read.
    """
    file, _, name = path.rpartition(":")
    if not file or not name.isidentifier():
        raise Refused([f"model.path={path}: name a class or function in the file, as in my_nets.py:ConvNet"])
    try:
        return NetworkCode(file, name, Path(file).read_bytes())
    except OSError as error:
        near = nearest(Path(file).name, (other.name for other in Path(file).parent.glob("*.py")))
        raise Refused([f"model.path={path}: {file} can't be read: {error.strerror}{near}"]) from error


def add(code: Iterable[NetworkCode]) -> None:
    """Know code that a command has read, in this process.

    Raises:
        Refused: if it can't be run.
    """
    for each in code:
        _arguments(each)
        know(each)


def know(code: NetworkCode) -> None:
    """Know code that was run in another process, in this one."""
    _known[code.source] = code


class NotNamed(Refused):
    """The code of a network is needed, and nobody has named its file: what a store names is not run."""


def of(config: ModuleConfig) -> NetworkCode:
    """Return the code of a network.

    Raises:
        NotNamed: if no command or call of this process has named it.
    """
    if (code := _known.get(config.source)) is None:
        named_by = "model.path=…, --code … or network(code=…)"
        raise NotNamed(
            [f"the code of {config.path} is not run unless a command or call names this file: {named_by}"]
        )
    return code


def allow(config: ModuleConfig, file: str) -> None:
    """Know the code of a recorded network, which is in this file.

    Raises:
        Refused: if the file's content is not what the network was trained with, or can't be read or run.
    """
    name = config.source.partition("@")[0]
    code = content(f"{os.path.abspath(os.path.expanduser(file))}:{name}")
    if code.source != config.source:
        raise Refused(
            [f"{file}: not what {name} was trained with, a copy of which is in the store, in code/"]
        )
    add([code])


def needed_by(configs: Iterable[RunConfig]) -> tuple[NetworkCode, ...]:
    """Return the code that the networks of runs need."""
    models = (config.model for config in configs)
    return tuple({model.source: of(model) for model in models if isinstance(model, ModuleConfig)}.values())


@cache
def _arguments(code: NetworkCode) -> Arguments:
    """Return the arguments that are settings."""
    found, problems = network_arguments.of(_builder(code))
    if problems:
        raise Refused([f"model.path={code.file}:{code.name}: {problem}" for problem in problems])
    return found


@cache
def _builder(code: NetworkCode) -> Callable[..., object]:
    """Run the code, and return its class or function.

    Raises:
        Refused: if it can't be run, changes more than its own module, or has no such class or function.
    """
    where = f"model.path={code.file}:{code.name}"
    module = ModuleType(f"lockstep_network_{hashlib.sha256(code.content).hexdigest()[:16]}")
    module.__file__ = code.file
    try:
        tree = ast.parse(code.content, code.file)
        if siblings := sorted(_siblings(tree, Path(code.file))):
            what = f"imports {', '.join(siblings)}, which the run's identity would not contain"
            raise Refused([f"{where}: {what}; a network is one file, or comes from an installed package"])
        sys.modules[module.__name__] = module
        with _nothing_changed(where):
            exec(compile(tree, code.file, "exec"), module.__dict__)
    except Refused:
        raise
    except Exception as error:
        raise Refused([f"{where}: {located(error, code.file)}"]) from error
    builder = getattr(module, code.name, None)
    if not callable(builder):
        names = [key for key, value in vars(module).items() if _is_network(value, module.__name__)]
        has = f"it has {', '.join(names)}" if names else "it has no class of a torch.nn.Module"
        raise Refused([f"{where}: no such class or function; {has}{nearest(code.name, names)}"])
    found: Callable[..., object] = builder
    return found


def _is_network(value: object, module: str) -> bool:
    from torch import nn

    return isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module


def _siblings(tree: ast.AST, file: Path) -> Iterator[str]:
    """Yield the modules beside a file that its code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{'.' * node.level}{node.module or ''}"
            continue
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
        for root in {name.partition(".")[0] for name in names}:
            beside = {(file.parent / root).with_suffix(".py"), file.parent / root / "__init__.py"}
            spec = None
            with suppress(ImportError, ValueError):
                spec = importlib.util.find_spec(root)
            found = Path(spec.origin) if spec is not None and spec.origin else None
            if found in beside or (spec is None and any(path.exists() for path in beside)):
                yield root


@contextmanager
def _nothing_changed(where: str) -> Iterator[None]:
    """Refuse code that changes torch's settings or draws random numbers while its file is run."""
    import torch

    def settings() -> dict[str, object]:
        return {
            "torch's default dtype": torch.get_default_dtype(),
            "torch's default device": torch.get_default_device(),
            "torch's number of threads": torch.get_num_threads(),
            "whether gradients are computed": torch.is_grad_enabled(),
            "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        }

    def drawn() -> tuple[object, ...]:
        return torch.get_rng_state().numpy().tobytes(), random.getstate(), str(np.random.get_state())

    before, random_before = settings(), drawn()
    yield
    problems = [f"changes {what}" for what, value in settings().items() if value != before[what]]
    if drawn() != random_before:
        problems.append("draws random numbers while it is imported, or seeds a generator")
    if problems:
        hint = 'put what trains or sets things under `if __name__ == "__main__":`'
        raise Refused([f"{where}: {problem}; {hint}" for problem in problems])


def _called(code: NetworkCode, settings: Mapping[str, Any]) -> str:
    return f"{code.name}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"


def located(error: BaseException, file: str) -> str:
    """Return an error with the line of the user's file that it comes from, if it does."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}" + (f" (line {line})" if line else "")
