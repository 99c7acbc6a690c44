"""A store's errors: whether it is away or refuses one thing, and what to say."""

import re
import sqlite3

from mlflow.exceptions import MlflowException
from requests import HTTPError, RequestException
from sqlalchemy.exc import SQLAlchemyError

from lockstep.config.errors import without_password

LONGEST = 300
"""The longest message, in characters: a server may answer with anything."""


def is_outage(error: Exception) -> bool:
    """Tell whether an error means that the store does not answer, not that it refuses one upload."""
    if isinstance(error, MlflowException):
        status = http_status(error)  # 500 also for INVALID_STATE, which a deleted run has
        return status == 429 or (status >= 500 and error.error_code != "INVALID_STATE")
    if isinstance(error, HTTPError) and error.response is not None:  # of an artifact
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return False
    return isinstance(error, (OSError, SQLAlchemyError, sqlite3.Error))


def is_stores(error: Exception) -> bool:
    """Tell whether an error comes from a store, or from the way to it."""
    return isinstance(error, (MlflowException, SQLAlchemyError, RequestException))


def http_status(error: MlflowException) -> int:
    """Return the status that a server answers with such an error."""
    return int(error.get_http_status_code())  # type: ignore[no-untyped-call]


def message_of(error: Exception) -> str:
    """Return an error in one line, without a password, a page of HTML, or characters that are none."""
    text = re.sub(r"^\(raised as a result of [^)]*\)", "", str(error).strip())  # by SQLAlchemy; no reason
    text = re.sub(r"\.? Response (body|text): ('?\s*<|'').*", "", text.strip(), flags=re.DOTALL)
    line = "".join(c if c.isprintable() else "?" for c in text.partition("\n")[0][:LONGEST])
    return without_password(line) or repr(error)
