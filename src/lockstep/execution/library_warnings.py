"""What libraries warn of in a worker: printed there, it would tear the command's table."""

_kept: list[str] = []


def keep(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Keep a warning for the next event, instead of `warnings.showwarning`."""
    _kept.append(f"{category.__name__}: {message}")


def taken() -> list[str]:
    """Return the warnings kept since the last call, each once."""
    kept = list(dict.fromkeys(_kept))
    _kept.clear()
    return kept
