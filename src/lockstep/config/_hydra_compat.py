"""What is private in Hydra or differs between 1.3 and 1.4. Nothing else imports `hydra._internal`."""

from argparse import ArgumentParser
from collections.abc import Sequence

import hydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

_IS_1_3 = hydra.__version__.startswith("1.3.")

VERSION_BASE: dict[str, str] = {"version_base": "1.3"} if _IS_1_3 else {}
"""Keyword arguments of `hydra.main` and `initialize_config_dir`: 1.3 warns where they are missing, 1.4 where
they are given, and 1.5 removes them."""


def arguments_parser() -> ArgumentParser:
    """Return the parser of Hydra's own flags, which has no public name; a copy would go out of date."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def set_override_dirname(composed: DictConfig, overrides: Sequence[Override]) -> None:
    """Set `hydra.job.override_dirname` of a run's config. Hydra 1.4 computes it by itself."""
    if not _IS_1_3:
        return
    from hydra._internal.config_loader_impl import get_overrides_dirname

    dirname = composed.hydra.job.config.override_dirname
    composed.hydra.job.override_dirname = get_overrides_dirname(
        list(overrides), dirname.exclude_keys, dirname.item_sep, dirname.kv_sep
    )
