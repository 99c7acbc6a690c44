"""What is private in Hydra or differs between 1.3 and 1.4. Nothing else imports `hydra._internal`."""

import copy
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
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


@contextmanager
def config_loader(conf_dir: Path, config_dir: Path | None, job_name: str) -> Iterator[ConfigLoader]:
    """Yield the loader that `hydra.main` uses, without Hydra's start.

    Args:
        conf_dir: the folder of the primary config.
        config_dir: a folder with more options, as `--config-dir` adds it. No public function takes one, and
            an override of `hydra.searchpath` would hide the primary config's own.
        job_name: `hydra.job.name`.
    """
    with initialize_config_dir(str(conf_dir), job_name=job_name, **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        if config_dir is not None:
            from hydra._internal.config_loader_impl import ConfigLoaderImpl

            path = copy.deepcopy(loader.get_search_path())
            path.prepend("command-line", f"file://{config_dir}", anchor=SearchPathQuery(provider="schema"))
            loader = ConfigLoaderImpl(path)
        yield loader


def without_aliases(loader: ConfigLoader, config_name: str, overrides: Sequence[str]) -> list[str]:
    """Return overrides with the primary config's `hydra.aliases` replaced, which Hydra 1.4 has."""
    if _IS_1_3:
        return list(overrides)
    aliases = loader.get_override_aliases(config_name)  # type: ignore[attr-defined]
    return [aliases.expand(override) for override in overrides]


def set_override_dirname(composed: DictConfig, overrides: Sequence[Override]) -> None:
    """Set `hydra.job.override_dirname` of a run's config. Hydra 1.4 computes it by itself."""
    if _IS_1_3:
        composed.hydra.job.override_dirname = override_dirname(composed.hydra.job, overrides)


def override_dirname(job: Mapping[str, Any], overrides: Sequence[Override]) -> Any:
    """Return `hydra.job.override_dirname` of a run, given `hydra.job`; of Hydra 1.4 what it has there."""
    if not _IS_1_3:
        return job["override_dirname"]
    from hydra._internal.config_loader_impl import get_overrides_dirname

    named = job["config"]["override_dirname"]
    return get_overrides_dirname(
        list(overrides), list(named["exclude_keys"]), named["item_sep"], named["kv_sep"]
    )
