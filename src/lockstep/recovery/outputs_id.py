"""The id of an outputs folder: in a store that several machines share, it tells whose a record is."""

import uuid
from functools import cache
from pathlib import Path

from lockstep.config.places import outputs


def outputs_id() -> str:
    """Return the id of this project's outputs folder, made at its first use: 32 hexadecimal digits."""
    return _id_in(outputs() / "id")


@cache
def _id_in(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not file.tell():
            file.write(uuid.uuid4().hex)  # appended: if two processes do, the first one's counts for both
            file.flush()
        file.seek(0)
        return file.read(32)
