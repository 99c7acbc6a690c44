"""A history as a table of every iteration and evaluation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from lockstep.results.history import Evaluation, History
from lockstep.results.history_file import FILE, read, table, write


def history(test=(), val=()):
    evaluations = [Evaluation(2 * i + 2, "test", 1 - a, a, a / 2, a / 3) for i, a in enumerate(test)]
    evaluations += [Evaluation(2 * i + 2, "val", 1 - a, a) for i, a in enumerate(val)]
    return History(np.array([2.5, 1.5]), np.array([0.25, 0.5]), evaluations, seconds=1.25)


def test_history_table_has_every_iteration_and_every_evaluation():
    rows = table(history(test=(0.75,), val=(0.5,)))
    expected = pd.DataFrame(
        {
            "iteration": [1, 2, 2, 2],
            "split": ["train", "train", "test", "val"],
            "loss": [2.5, 1.5, 0.25, 0.5],
            "accuracy": [0.25, 0.5, 0.75, 0.5],
            "balanced_accuracy": [np.nan, np.nan, 0.375, np.nan],
            "f1_macro": [np.nan, np.nan, 0.25, np.nan],
        }
    )
    pd.testing.assert_frame_equal(rows.to_pandas(), expected)
    assert len(table(history())) == 2


@pytest.mark.parametrize("is_old", [False, True])
def test_a_file_gives_the_history_back(tmp_path, is_old):
    written = history(test=(1 / 3,), val=(0.5,))
    write(written, tmp_path)
    if is_old:  # as version 0.1.0 wrote it
        columns = ["iteration", "split", "loss", "accuracy"]
        parquet.write_table(table(written).select(columns), tmp_path / FILE)
        written.evaluations[0] = replace(written.evaluations[0], balanced_accuracy=None, f1_macro=None)
    again = read(tmp_path)
    assert again.loss_T.tolist() == written.loss_T.tolist()
    assert again.accuracy_T.tolist() == written.accuracy_T.tolist()
    assert again.evaluations == written.evaluations
