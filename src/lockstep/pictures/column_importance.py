"""Which columns of a table a network's predictions rest on. Suffixes: M rows, K columns, F features."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.inspection import permutation_importance

from lockstep.data import splits
from lockstep.data.datasets import Dataset
from lockstep.results.run_files import COLUMN_ROWS as ROWS
from lockstep.training.networks import Network

REPEATS = 5
"""Permutations of each column, scikit-learn's default."""


class _OfRows(BaseEstimator):  # type: ignore[misc]
    """A network as scikit-learn's estimator of rows that are put together column by column.

    Row r of its input has, for each of K columns, the row of `x_MxF` that this column's features are taken
    from. So to permute one of its columns permutes a column of the table, with all of its features.
    """

    def __init__(self, network: Network, x_MxF: torch.Tensor, columns_K: list[slice]) -> None:
        self.network, self.x_MxF, self.columns_K = network, x_MxF, columns_K

    def fit(self, rows_MxK: NDArray[np.int64], y_M: NDArray[np.int64]) -> "_OfRows":
        """Return itself: the network is trained. scikit-learn asks for this method."""
        return self

    def score(self, rows_MxK: NDArray[np.int64], y_M: NDArray[np.int64]) -> float:
        """Return the accuracy."""
        return float((self.predict(rows_MxK) == y_M).mean())

    @torch.no_grad()
    def predict(self, rows_MxK: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class of each row."""
        parts = [
            self.x_MxF[torch.from_numpy(rows_M), columns]
            for rows_M, columns in zip(rows_MxK.T, self.columns_K, strict=True)
        ]
        predicted: NDArray[np.int64] = self.network.eval()(torch.cat(parts, dim=1)).argmax(1).cpu().numpy()
        return predicted


def importances(network: Network, dataset: Dataset) -> dict[str, tuple[float, float]]:
    """Return how much of the test accuracy is lost if a column's values are permuted, by column.

    A mean and a standard deviation over REPEATS permutations each, by scikit-learn's permutation_importance
    (Breiman, 2001), on up to ROWS test instances; the largest mean first.

    Args:
        dataset: a table.
    """
    table = dataset.description.table
    assert table is not None
    widths = [len(column.feature_names) for column in table.columns]
    stops = np.cumsum(widths)
    columns_K = [slice(stop - width, stop) for width, stop in zip(widths, stops, strict=True)]
    weight = next(network.parameters())
    rows_M = _measured(dataset.y_test.numpy())
    x_MxF = dataset.x_test[rows_M].to(weight.device, weight.dtype)
    model = _OfRows(network, x_MxF, columns_K)
    rows_MxK = np.tile(np.arange(len(x_MxF))[:, None], len(columns_K))
    y_M = dataset.y_test[rows_M].numpy()
    found = permutation_importance(model, rows_MxK, y_M, n_repeats=REPEATS, random_state=0)
    of_names = {
        column.name: (float(mean), float(std))
        for column, mean, std in zip(
            table.columns, found.importances_mean, found.importances_std, strict=True
        )
    }
    return dict(sorted(of_names.items(), key=lambda item: -item[1][0]))


def _measured(labels_N: NDArray[np.int64]) -> torch.Tensor:
    """Return the test rows to measure on: of more than ROWS, some of each class, the same in every call.

    The first ones would not do: in a file that is sorted by class, they are of one class.
    """
    n = len(labels_N)
    if n <= ROWS:
        return torch.arange(n)
    n_drawn = min(ROWS, n - len(np.unique(labels_N)))  # each class keeps a row that is not drawn
    return torch.from_numpy(splits.stratified(labels_N, n_drawn, 0)[1])
