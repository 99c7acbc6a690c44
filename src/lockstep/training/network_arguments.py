"""The arguments of a user's class or function that are settings: types, defaults, values as plain data."""

import inspect
import json
import typing
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from lockstep.config.parsing import as_if_typed

FROM_DATA = ("input_shape", "n_classes")
"""Arguments that the data gives, where the signature names them."""

RESERVED = ("name", "path", "source")
"""Settings of `model=module` itself."""


class Argument:
    """An argument of a class or function that is a setting.

    Attributes:
        default: plain data; None where `is_required`.
    """

    def __init__(self, kind: Any, default: Any, is_required: bool) -> None:
        self._type: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))
        self.is_required = is_required
        self.default = (
            None if is_required else _plain(self._type.dump_python(default, mode="json", warnings=False))
        )

    def value(self, plain: Any) -> Any:
        """Return what the class or function gets for plain data. Raise ValueError if it doesn't fit."""
        try:
            return self._type.validate_json(json.dumps(plain))
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].replace("Input should be", "must be")) from error

    def plain(self, typed: Any) -> Any:
        """Return a typed value as plain data. Raise ValueError if it doesn't fit."""
        try:
            value = self.value(typed)
        except ValueError:
            if not isinstance(typed, str):
                raise
            value = self.value(as_if_typed(typed))  # what ${oc.env:WIDTH} resolves to is text
        return _plain(self._type.dump_python(value, mode="json"))


def _plain(value: Any) -> Any:
    """Return plain data as JSON has it. Raise TypeError if it isn't."""
    return json.loads(json.dumps(value))


def of(builder: Callable[..., object]) -> tuple[dict[str, Argument], list[str]]:
    """Return the arguments that are settings, those whose type or default is plain data, and the problems."""
    hints: dict[str, Any] = {}
    with suppress(Exception):  # annotations may name anything
        annotated: Any = builder
        if isinstance(builder, type):
            annotated = inspect.getattr_static(builder, "__init__")
        hints = typing.get_type_hints(annotated)
    found, problems = {}, []
    for key, parameter in inspect.signature(builder).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or key in FROM_DATA:
            continue
        is_required, default = parameter.default is parameter.empty, parameter.default
        try:
            found[key] = Argument(hints.get(key, _guessed(default)), default, is_required)
        except (PydanticUserError, TypeError, ValueError):
            if is_required:
                problems.append(f"its argument {key} is no plain data, so it can't be set; give it a default")
            continue
        if key in RESERVED or parameter.kind == parameter.POSITIONAL_ONLY:
            problems.append(f"its argument {key} can't be a setting; rename it, or let it be given by name")
    return found, problems


def _guessed(default: Any) -> Any:
    """Return the type of an argument without annotation, from its default."""
    kinds: dict[type, Any] = {bool: bool, int: int | float, float: float, str: str}
    return kinds.get(type(default), Any)
