"""A history as a table of every iteration and evaluation."""

import numpy as np
import pandas as pd

from lockstep.results.history import Evaluation, History
from lockstep.results.history_file import read, table, write


def history(test=(), val=()):
    evaluations = [Evaluation(2 * i + 2, "test", 1 - a, a) for i, a in enumerate(test)]
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
        }
    )
    pd.testing.assert_frame_equal(rows.to_pandas(), expected)
    assert len(table(history())) == 2


def test_a_file_gives_the_history_back(tmp_path):
    written = history(test=(1 / 3,), val=(0.5,))
    write(written, tmp_path)
    again = read(tmp_path)
    assert again.loss_T.tolist() == written.loss_T.tolist()
    assert again.accuracy_T.tolist() == written.accuracy_T.tolist()
    assert again.evaluations == written.evaluations
