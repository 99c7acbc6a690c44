"""A run's predictions as an artifact, `predictions.parquet`, and back."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from lockstep.config.errors import Refused
from lockstep.results.history import HeldOut
from lockstep.results.predictions import Predictions

FILE = "predictions.parquet"
CLASS_NAMES = b"class_names"
"""The key of the schema's metadata with the names of the classes, as JSON."""


def write(predictions: Mapping[HeldOut, Predictions], folder: Path) -> None:
    """Write a run's predictions below its artifacts: one row per instance, split by split.

    Columns: split (`test`, `val`), label and prediction (int32), probabilities (a list of C float32). MNIST's
    test set takes 0.37 MB: the last bits of probabilities are noise, so no compression gains more.
    """
    splits = list(predictions.values())
    label, prediction = (
        np.concatenate([getattr(of_split, name) for of_split in splits]).astype(np.int32)
        for name in ("label_N", "prediction_N")
    )
    probabilities = np.concatenate([of_split.probabilities_NxC for of_split in splits])
    names = [name for name, of_split in predictions.items() for _ in of_split.label_N]
    table = pa.table(
        {
            "split": names,
            "label": label,
            "prediction": prediction,
            "probabilities": pa.FixedSizeListArray.from_arrays(probabilities.ravel(), probabilities.shape[1]),
        }
    ).replace_schema_metadata({CLASS_NAMES: json.dumps(splits[0].class_names)})
    parquet.write_table(
        table,
        folder / FILE,
        compression="zstd",
        use_dictionary=["split"],
        column_encoding={"probabilities.list.element": "BYTE_STREAM_SPLIT"},
    )


def read(file: Path) -> dict[HeldOut, Predictions]:
    """Return the predictions in a file, by split.

    Raises:
        Refused: if it can't be read.
    """
    try:
        table = parquet.read_table(file)
        class_names = tuple(json.loads(table.schema.metadata[CLASS_NAMES]))
        split = table["split"].to_numpy()
        label, prediction = (table[name].to_numpy() for name in ("label", "prediction"))
        flat = table["probabilities"].combine_chunks().flatten().to_numpy()
        probabilities = flat.reshape(len(split), len(class_names))
        if min(label.min(), prediction.min()) < 0 or max(label.max(), prediction.max()) >= len(class_names):
            raise ValueError("classes without a name")
        return {
            name: Predictions(label[rows], prediction[rows], probabilities[rows], class_names)
            for name in ("test", "val")
            if (rows := split == name).any()
        }
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
        raise Refused([f"{FILE}: can't be read ({type(error).__name__})"]) from error
