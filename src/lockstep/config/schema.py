"""A run's configuration: validated once, then frozen.

`RunConfig.of` takes Hydra's composed config and either returns frozen objects or raises `Refused` with every
error found.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError, model_validator

from lockstep.config import plain_yaml
from lockstep.config.data_config import DataConfig
from lockstep.config.errors import NAMED, Refused, problem
from lockstep.config.frozen import Count, Frozen, members
from lockstep.config.identity import ADDED, EARLIER_VERSIONS, NUMERICS_VERSION, is_identity
from lockstep.config.model_config import ModelConfig
from lockstep.config.optim_config import AdamConfig, SGDConfig
from lockstep.config.tracking_config import TrackingConfig


class TrainerConfig(Frozen):
    """A run's epochs, loss, early stopping, device, precision, logging and checkpoints.

    `patience` and `monitor`: see lockstep.results.early_stopping. Without a patience nothing is monitored.
    """

    epochs: Count
    patience: Count | None = None
    monitor: Literal["val/loss", "val/accuracy"] = "val/loss"
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["float32", "bfloat16", "float64"]
    log_every: Count
    checkpoint_seconds: float = Field(ge=0, default=10.0)
    label_smoothing: float = Field(ge=0, lt=1, default=0.0)
    class_weights: Literal["balanced"] | None = None
    threads: int = Field(ge=1, le=1024, default=1)

    @model_validator(mode="after")
    def _monitor_needs_patience(self) -> Self:
        if self.patience is None:  # so that runs with equal numbers have equal settings
            object.__setattr__(self, "monitor", "val/loss")
        return self


class RunConfig(Frozen):
    """The resolved config of one run."""

    model: Annotated[ModelConfig, Field(discriminator="name")]
    optim: Annotated[SGDConfig | AdamConfig, Field(discriminator="name")]
    data: Annotated[DataConfig, Field(discriminator="name")]
    trainer: TrainerConfig
    tracking: TrackingConfig
    seed: int = Field(ge=0, lt=2**63)
    dry_run: bool = False
    rerun: bool = False

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        warmup, epochs = self.optim.warmup_epochs, self.trainer.epochs
        if warmup is not None and warmup >= epochs:
            raise ValueError(f"optim.warmup_epochs={warmup:g}: must be less than trainer.epochs={epochs}")
        return self

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> Self:
        if self.trainer.patience is not None and self.data.val_size == 0:
            raise ValueError(
                f"trainer.patience={self.trainer.patience}: needs a validation split for"
                f" trainer.monitor={self.trainer.monitor}; give data.val_size, the number of instances in it"
            )
        return self

    @classmethod
    def of(
        cls, composed: DictConfig, module: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> Self:
        """Validate a config that Hydra composed, without its `hydra` node.

        Args:
            module: completes the settings of `model=module`, which is refused without it.

        Raises:
            Refused: with a message for each value that is missing, unknown, mistyped or out of range.
        """
        try:
            missing: list[str] = []
            tree: dict[str, Any] = {}
            for key in map(str, composed):
                if key != "hydra" and not OmegaConf.is_missing(composed, key):
                    node = composed[key]
                    if isinstance(node, Container):
                        missing += OmegaConf.missing_keys(node)
                        node = OmegaConf.to_container(node, resolve=True)
                    tree[key] = node
                elif key != "hydra":
                    missing.append(key)
        except OmegaConfBaseException as error:
            raise Refused([f"{error.full_key}: {str(error).splitlines()[0]}"]) from error
        if missing:
            raise Refused([f"{key}: required; give it as {key}=<value>" for key in sorted(missing)])
        if isinstance(tree.get("model"), dict) and tree["model"].get("name") == "module":
            if module is None:
                raise Refused(["model=module: its code can't be run here"])
            tree["model"] = module(tree["model"])
        return cls.of_tree(tree)

    @classmethod
    def from_yaml(cls, path: Path, uri: str) -> Self:
        """Return the config that `to_yaml` wrote, with the store at `uri`. It is plain data.

        Raises:
            Refused: if this version doesn't accept it.
        """
        tree = plain_yaml.read(path)
        if not isinstance(tree, dict) or not isinstance(tree.get("tracking"), dict):
            raise Refused([f"{path.name}: not a run's config"])
        tree["tracking"]["uri"] = uri
        return cls.of_tree(tree)

    @classmethod
    def of_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Validate settings that are resolved. Its groups may be validated already.

        Raises:
            Refused: see `of`.
        """
        if isinstance(data := tree.get("data"), dict):
            # Later commands may be started in other folders.
            located = {key: data.get(key) for key in ("root", "path", "test_path")}
            paths = {
                key: os.path.abspath(os.path.expanduser(path))
                for key, path in located.items()
                if isinstance(path, str)
            }
            tree = {**tree, "data": {**data, **paths}}
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise Refused([problem(details, tree) for details in error.errors()]) from error

    def params(self) -> dict[str, Any]:
        """Return every resolved value under the key that a user types, without the store's address.

        Nor are the run's name, tags and note, which the store has as such, `system_metrics` and `weights`.
        """
        commands: Any = {
            "tracking": {"uri", "name", "tags", "note", "system_metrics", "weights"},
            "dry_run": True,
            "rerun": True,
        }
        flat = dict(flatten(self.model_dump(mode="json", exclude=commands)))
        for group in NAMED:
            flat[group] = flat.pop(f"{group}.name")
        return dict(sorted(flat.items()))

    def param_texts(self) -> dict[str, str]:
        """Return `params` as text, as the store has them."""
        return {
            key: json.dumps(value) if value is None or isinstance(value, bool) else str(value)
            for key, value in self.params().items()
        }

    def run_key(self, data_digest: str) -> str:
        """Return 32 hex digits that identify a run: equal for runs that must get equal numbers."""
        return self.run_keys(data_digest)[NUMERICS_VERSION]

    def run_keys(self, data_digest: str) -> dict[int, str]:
        """Return the keys under which a finished run counts, by the version of its numerics, this one first.

        They are the SHA-256 of the settings that identify it, the data's digest and the version. A setting
        that is added later must have a default with the old behaviour, and is left out here where it has that
        value, see `ADDED`: otherwise no run in a store would be recognised.
        """
        texts = self.param_texts()
        kept = {
            key: value
            for key, value in flatten(self.model_dump(mode="json"))
            if is_identity(key) and (key not in ADDED or texts[key] != ADDED[key])
        }
        identity = json.dumps([data_digest, kept], sort_keys=True)[1:]
        return {
            version: hashlib.sha256(f"[{version}, {identity}".encode()).hexdigest()[:32]
            for version in (NUMERICS_VERSION, *EARLIER_VERSIONS)
        }

    def to_yaml(self) -> str:
        """Return the resolved config as YAML, without the store's address."""
        groups = self.model_dump(mode="json", exclude={"tracking": {"uri"}})
        return "".join(
            f"{key}: {group}\n" if type(group) is int else _yaml_of(json.dumps({key: group}))
            for key, group in groups.items()
        )


@lru_cache(maxsize=1024)
def _yaml_of(group: str) -> str:
    """Return a group of settings, JSON, as YAML: 0.8 ms, so not again for each of a thousand runs."""
    return str(OmegaConf.to_yaml(OmegaConf.create(json.loads(group))))


def types_of(key: str) -> list[Any]:
    """Return the types that the schema allows for a key, such as `optim.lr`; for an unknown key none."""
    found: list[Any] = [RunConfig]
    for part in key.split("."):
        found = [member for owner in found for inner in _inside(owner, part) for member in members(inner)]
    return found


def _inside(owner: Any, part: str) -> Iterable[Any]:
    """Return the annotations of a model's field, or of a tuple's element."""
    if get_origin(owner) is tuple:
        return (inner for inner in get_args(owner) if part.isdigit() and inner is not ...)
    field = getattr(owner, "model_fields", {}).get(part)
    return () if field is None else (field.annotation,)


def flatten(tree: Mapping[str, Any], prefix: str = "", with_nodes: bool = False) -> Iterable[tuple[str, Any]]:
    """Yield the values of nested mappings under the keys that a user types.

    Args:
        with_nodes: whether to yield inner mappings as well, each before its values, and elements of lists.
    """
    for key, value in tree.items():
        if with_nodes or not isinstance(value, Mapping):
            yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.", with_nodes)
        elif with_nodes and isinstance(value, list):
            yield from ((f"{prefix}{key}.{index}", element) for index, element in enumerate(value))
