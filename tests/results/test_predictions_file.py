import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from lockstep.config.errors import Refused
from lockstep.results import predictions_file
from lockstep.results.predictions import Predictions


def split(n, seed, names=("a", "b", "c")):
    rng = np.random.default_rng(seed)
    probabilities_NxC = rng.dirichlet(np.full(len(names), 0.1), n).astype(np.float32)
    return Predictions(rng.integers(3, size=n), probabilities_NxC.argmax(1), probabilities_NxC, names)


def test_a_file_gives_predictions_back_bit_for_bit(tmp_path):
    written = {"test": split(7, 0), "val": split(4, 1)}
    predictions_file.write(written, tmp_path)
    read = predictions_file.read(tmp_path / predictions_file.FILE)
    assert list(read) == ["test", "val"]
    for name, expected in written.items():
        assert np.array_equal(read[name].label_N, expected.label_N)
        assert np.array_equal(read[name].prediction_N, expected.prediction_N)
        assert read[name].probabilities_NxC.tobytes() == expected.probabilities_NxC.tobytes()
        assert read[name].class_names == ("a", "b", "c")
    before = (tmp_path / predictions_file.FILE).read_bytes()
    predictions_file.write(read, tmp_path)
    assert (tmp_path / predictions_file.FILE).read_bytes() == before


def test_others_read_it_as_a_table(tmp_path):
    written = split(5, 0)
    predictions_file.write({"test": written}, tmp_path)
    table = pd.read_parquet(tmp_path / predictions_file.FILE)
    assert list(table) == ["split", "label", "prediction", "probabilities"]
    assert np.array_equal(np.stack(table.probabilities), written.probabilities_NxC)
    schema = parquet.read_schema(tmp_path / predictions_file.FILE)
    assert [str(kind) for kind in schema.types[:3]] == ["string", "int32", "int32"]
    assert json.loads(schema.metadata[b"class_names"]) == ["a", "b", "c"]


def test_ten_thousand_instances_of_ten_classes_take_less_than_their_probabilities(tmp_path):
    names = tuple(map(str, range(10)))
    predictions_file.write({"test": split(10_000, 0, names)}, tmp_path)
    assert (tmp_path / predictions_file.FILE).stat().st_size < 0.96 * 10_000 * 10 * 4


@pytest.mark.parametrize("broken", ["text", "no names", "a class without a name", "other rows", "no rows"])
def test_a_file_that_is_none_is_refused(tmp_path, broken):
    path = tmp_path / predictions_file.FILE
    predictions_file.write({"test": split(5, 0)}, tmp_path)
    table = parquet.read_table(path)
    if broken == "text":
        path.write_text("text")
    elif broken == "no names":
        parquet.write_table(table.replace_schema_metadata({}), path)
    elif broken == "a class without a name":
        parquet.write_table(table.set_column(1, "label", pa.array([0, 1, 2, 3, 0])), path)
    elif broken == "other rows":
        parquet.write_table(table.replace_schema_metadata({b"class_names": b'["a"]'}), path)
    else:
        parquet.write_table(table.slice(0, 0), path)
    with pytest.raises(Refused, match=r"^predictions\.parquet: can't be read \(\w+\)$"):
        predictions_file.read(path)
