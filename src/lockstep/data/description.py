"""A data set without its tensors, as recorded in the store and used to plan."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from lockstep.data.table_model import Column

if TYPE_CHECKING:  # a process without pydantic describes data, too
    from lockstep.config.data_config import DataConfig

EXAMPLES = 5
"""The number of rows of a logged model's input example."""


@dataclass(frozen=True)
class TableDescription:
    """A table's columns.

    Attributes:
        target: the column that is predicted.
        columns: that it is predicted from, as they were fitted on the training split.
        left_out: columns that say nothing, and why.
        examples: some rows of the columns, as they are in the file.
    """

    target: str
    columns: tuple[Column, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    examples: tuple[tuple[float | str | None, ...], ...] = ()

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the description whose `asdict` was written as JSON."""
        left_out = tuple((name, why) for name, why in values["left_out"])
        columns, examples = map(Column.of_json, values["columns"]), map(tuple, values["examples"])
        return cls(values["target"], tuple(columns), left_out, tuple(examples))


@dataclass(frozen=True)
class DataDescription:
    """A data set's description.

    Attributes:
        digest: 32 hex digits of the SHA-256 of the source arrays, and of how they are scaled if that differs
            from version 0.1.0; equal for equal data.
        feature_shape: the shape of one instance in its source, before it is flattened: (28, 28) for MNIST.
        class_names: the name of each class index.
        n_train, n_test: instances.
        source: where the data came from: a function, a class or a path.
        scale: how features were scaled: `none`, a divisor, or `standardize`; empty if not recorded.
        majority: the most frequent class of the training instances; of equally frequent ones the first.
        majority_accuracy: the share of the test instances that have it; None if not recorded.
        fold: the fold that is the test set, see `lockstep.data.folds`; None without folds.
        pool_digest: of the instances of all folds, as divided into them; empty without folds.
        fold_sizes: instances of each fold, where the files of the arrays are those of all folds; else empty.
        table: the columns of a table, None of other data.
    """

    name: str
    digest: str
    feature_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    n_train: int
    n_test: int
    source: str
    scale: str = ""
    majority: int = 0
    majority_accuracy: float | None = None
    fold: int | None = None
    pool_digest: str = ""
    fold_sizes: tuple[int, ...] = ()
    table: TableDescription | None = None

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the description whose `asdict` was written as JSON, which has no tuples."""
        found: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        if (table := values.get("table")) is not None:
            found["table"] = TableDescription.of_json(table)
        return cls(**found)

    @property
    def n_features(self) -> int:
        """The number of features."""
        return math.prod(self.feature_shape)

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape in which a network sees an instance: C x H x W of an image, `feature_shape` of others."""
        if len(self.feature_shape) == 2:
            return (1, *self.feature_shape)
        if has_channels_last(self.feature_shape):
            return (self.feature_shape[-1], *self.feature_shape[:-1])
        return self.feature_shape


def iterations_per_epoch(stream: "DataConfig", data: DataDescription) -> int:
    """Return the training iterations of an epoch."""
    n_left = data.n_train - stream.val_size
    return n_left // stream.batch_size if stream.drop_last else math.ceil(n_left / stream.batch_size)


CHANNELS = (1, 3, 4)
"""How many channels an image may have: grey, red-green-blue, and a fourth, such as opacity or infrared."""


def is_image(shape: tuple[int, ...]) -> bool:
    """Tell whether an instance's shape is an image's: H x W, C x H x W, or H x W x C, with C in CHANNELS."""
    return len(shape) == 2 or (len(shape) == 3 and (shape[0] in CHANNELS or shape[-1] in CHANNELS))


def has_channels_last(shape: tuple[int, ...]) -> bool:
    """Tell whether an instance's shape is H x W x C. If both its ends are in CHANNELS, it is C x H x W."""
    return len(shape) == 3 and shape[-1] in CHANNELS and shape[0] not in CHANNELS
