"""Bad input as messages: the key, the value, what is allowed, the nearest right name."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

NAMED = ("model", "optim", "data")
"""Groups whose options have a `name`."""


class Refused(Exception):
    """A command that was rejected; `problems` holds one message per error."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type["Refused"], tuple[Sequence[str]]]:
        return type(self), (self.problems,)  # from a worker

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: as on the command line, no traceback."""
        return str(self).splitlines()


SECRET_OPTION = r"\w*(?:pass|pwd|secret|token|credential|(?:api|access|private)_?key|odbc_connect)\w*"
"""The name of an option in a URI whose value is a secret; odbc_connect has all of a connection's options."""

_URI = re.compile(r"(?<![\w+.-])[A-Za-z][\w+.-]*://")
"""How a URI starts in a text."""


def without_password(text: str) -> str:
    """Return `text` with the user, password and secret options of any URI in it replaced by ***.

    Where a URI ends is not known in a text: a password may hold spaces and quotes. Too much is replaced
    rather than too little. For a URI by itself, see lockstep.tracking.address.without_secrets.
    """
    starts = [0, *(match.start() for match in _URI.finditer(text)), len(text)]
    return "".join(_without_secrets(text[start:end]) for start, end in pairwise(starts))


def _without_secrets(piece: str) -> str:
    """Return a text without the secrets of the one URI that it starts with, if it does."""
    line, newline, rest = piece.partition("\n")
    scheme, mark, place = line.partition("://")
    if not mark or not _URI.match(line) or scheme.startswith("sqlite"):  # whose path may have an @
        return piece
    place = re.sub(rf"([?&]{SECRET_OPTION}=)(?!\*\*\*)[^&]+", r"\1***", place, flags=re.IGNORECASE)
    _, at, after = place.rpartition("@")
    if at and not place.startswith(("/", "***@")):
        place = f"***@{after}"
    return f"{scheme}://{place}{newline}{rest}"


_INTERPOLATION = re.compile(r"\$\{(?:[^{}]|\{[^{}]*\})*\}")


def holds_password(uri: str) -> bool:
    """Tell whether a URI holds a password as it stands in a config; one in the environment does not count."""
    written = re.sub(r"//([^:@/]*:)?@", "//", _INTERPOLATION.sub("", uri))
    return any(without_password(text) != text for text in (written, *_INTERPOLATION.findall(uri)))


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean …?` with the most similar name, or an empty string if none is similar."""
    match = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {match[0]}?" if match else ""


def problem(details: Mapping[str, Any], tree: Any) -> str:
    """Return one pydantic error as a sentence: key, value, what is allowed, the nearest right name."""
    message = details["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
    if details["type"] == "value_error":  # raised by our validators, whose messages name the key
        return str(message)
    group, *rest = (str(part) for part in details["loc"])
    if group in NAMED and len(rest) > 1:
        rest = rest[1:]  # pydantic puts the union's branch after the group
    key = re.sub(r"\.(\d+)", r"[\1]", ".".join([group, *rest]))
    if details["type"] == "missing":
        return f"{key} is missing"
    given = details["input"]
    if details["type"].startswith("union_tag"):
        key, given = f"{group}.name", tree[group].get("name") if isinstance(tree[group], dict) else given
    if details["type"] == "extra_forbidden":
        owner = tree[group].get("name") if rest and group in NAMED else None
        message = f"not a setting of {group}={owner}" if owner else "not a setting"
    if details["type"] == "model_type":
        message = f"has settings of its own; give them as {key}.<setting>=<value>"
    expected = details.get("ctx", {}).get("expected", "")
    choices = [choice.strip("' ") for choice in expected.replace(" or ", ",").split(",")] if expected else []
    return f"{key}={_shown(given)}: {message}{nearest(str(given), choices)}"


def _shown(value: Any) -> str:
    """Return a value as it is typed, cut to 60 characters."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
