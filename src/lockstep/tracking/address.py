"""Addresses: of a store, as it is typed or pasted, and of artifacts."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from lockstep.config import places
from lockstep.config.errors import SECRET_OPTION, without_password
from lockstep.tracking import _mlflow_compat

ARTIFACTS = "artifacts"
"""The folder beside an SQLite store's file that holds its artifacts."""

OPTIONS = re.compile(r"\?\w+=[^/?]*$")
"""Options after the path of an SQLite store."""


def default_uri() -> str:
    """Return the URI of the store that commands use unless `tracking.uri` says otherwise."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{places.outputs() / 'mlflow.db'}"


def is_missing(uri: str) -> bool:
    """Tell whether an SQLite store isn't there: it may have been moved."""
    return uri.startswith("sqlite") and not sqlite_path(uri).exists()


def without_secrets(uri: str) -> str:
    """Return a store's URI with its user, password and secret options replaced by ***."""
    try:
        user_info = _user_info(uri)
    except (ValueError, ArgumentError):  # no library can read it
        return without_password(uri)
    scheme, mark, place = uri.partition("://")
    place, question, options = place.removeprefix(user_info).partition("?")
    pairs = (option.partition("=") for option in options.split("&"))
    shown = [
        f"{name}{equals}{'***' if value and _is_secret(name) else value}" for name, equals, value in pairs
    ]
    return f"{scheme}{mark}{'***@' if user_info else ''}{place}{question}{'&'.join(shown)}"


def _is_secret(name: str) -> bool:
    return re.fullmatch(SECRET_OPTION, unquote(name), re.IGNORECASE) is not None


def _user_info(uri: str) -> str:
    """Return what stands before the host in a URI, @ included, as the library that opens it reads it.

    Raises:
        ValueError: if part of it is read as a host or port, which would be looked up and shown.
        ArgumentError: if it is no URI.
    """
    if uri.startswith("sqlite"):
        return ""
    if uri.startswith(("http:", "https:")):
        server = urlsplit(uri)
        _ = server.port  # raises ValueError
        return server.netloc[: server.netloc.rfind("@") + 1]
    url, place = make_url(uri), uri.partition("://")[2]
    if "@" in (url.host or ""):
        raise ValueError(uri)
    return "" if url.username is None else place[: place.index("@") + 1]


def check_user_info(uri: str) -> None:
    """Check that a URI's user and password are read as such.

    Raises:
        ValueError: if they have characters that end them.
    """
    try:
        _user_info(uri)
    except ValueError as error:
        if "@" in uri:
            raise ValueError(
                "special characters of a user or password must be percent-encoded, such as %40 for an at"
                " sign, %2F for a slash, %23 for #, %3F for a question mark"
            ) from error
    except ArgumentError:
        return


def check_server(uri: str) -> None:
    """Check that a server's address is no page's, pasted from a browser.

    Raises:
        ValueError: with the right address.
    """
    parts = urlsplit(uri)
    if parts.query or parts.fragment:
        server = parts._replace(query="", fragment="").geturl().rstrip("/")
        raise ValueError(f"a server's address has no ? and no #; give {server}")


def sqlite_path(uri: str) -> Path:
    """Return the file of an SQLite store.

    An address may have been made from a path as it is, or with %20 for a space. What exists decides.

    Raises:
        ValueError: if the store is in memory.
    """
    database = OPTIONS.sub("", uri.partition(":///")[2])
    if not database or database == ":memory:":
        raise ValueError("an in-memory SQLite store would be lost with the process; name a file")
    as_typed, decoded = Path(database).absolute(), Path(unquote(database)).absolute()
    return as_typed if _existing(as_typed) > _existing(decoded) else decoded


def sqlite_uri(path: Path) -> str:
    """Return the address of an SQLite store, as SQLAlchemy reads it."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def with_options(uri: str) -> str:
    """Return the address of an SQLite store, as SQLAlchemy reads it, with its options."""
    options = OPTIONS.search(uri)
    return sqlite_uri(sqlite_path(uri)) + (options[0] if options else "")


def _existing(path: Path) -> int:
    """Return how many folders of a path exist, and the file."""
    return sum(map(os.path.exists, (path, *path.parents)))


def stood_in(location: str, file: Path) -> Path | None:
    """Return the folder in which an SQLite store stood when it got an experiment's artifact location.

    None if that is its folder still, or the artifacts were never beside it. After a move, a folder of that
    name is gone; or runs tell: their artifacts are beside the store, though the location is elsewhere.
    """
    old, here = local_path(location), file.with_name(ARTIFACTS)
    if old is None or old.name != ARTIFACTS or old == here:
        return None
    if not old.parent.exists() and old.parent.name == file.parent.name:
        return old.parent
    if old.exists() and here.exists() and old.samefile(here):  # by a link
        return None
    runs = map(local_path, _mlflow_compat.run_locations(file))
    below = [run.relative_to(old) for run in runs if run is not None and run.is_relative_to(old)]
    return old.parent if any((here / run).exists() for run in below) else None


def local_path(location: str) -> Path | None:
    """Return the path of an artifact location, None where it isn't a local one."""
    parts = urlsplit(location)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(location) if location.startswith("/") else None
