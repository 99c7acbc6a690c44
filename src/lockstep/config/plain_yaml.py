"""YAML as plain data. Whoever writes to a store that others share can write anything there."""

from pathlib import Path
from typing import Any

import yaml

from lockstep.config.errors import Refused

LARGEST = 2**18
"""Bytes of the largest file that is read: a run's config has about 1,000; this many take seconds to read."""

DEEPEST = 20
"""Levels of the deepest file that is read: a run's config has 3. PyYAML's time grows with their square."""


def read(file: Path | str) -> Any:
    """Return a file's content; interpolations in it are text.

    Raises:
        Refused: if it is too large, or not YAML without aliases.
    """
    path = Path(file)
    if (size := path.stat().st_size) > LARGEST:
        raise Refused([f"{path.name}: {size:,} bytes; allowed: up to {LARGEST:,}"])
    try:
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):  # a few lines can stand for more data than fits in memory
                raise ValueError("it has aliases")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"more than {DEEPEST} levels")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        reason = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise Refused([f"{path.name}: can't be read as YAML: {reason}"]) from error
