"""Settings as frozen objects."""

from collections.abc import Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lockstep.config.parsing import as_if_typed

MOST = 10**9
"""The largest width, and number of epochs, trials and the like. Far larger ones don't fit in an int64."""

Count = Annotated[int, Field(ge=1, le=MOST)]


class Frozen(BaseModel):
    """Settings that can't be changed.

    Text counts as what it would be on the command line: what `${oc.env:EPOCHS}` resolves to is text, though
    the setting is a number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {
            key: as_if_typed(value) if isinstance(value, str) and not _takes_text(cls, key) else value
            for key, value in values.items()
        }


@cache
def _takes_text(model: type[BaseModel], key: str) -> bool:
    field = model.model_fields.get(key)
    types = [] if field is None else list(members(field.annotation))
    return not types or any(kind is str or get_origin(kind) is Literal for kind in types)


def members(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, any other annotation itself."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, UnionType, Union):
        for member in inner[:1] if origin is Annotated else inner:
            yield from members(member)
    else:
        yield annotation
