"""What `Sweep.ensemble` returns: runs whose probabilities are averaged."""

import functools
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lockstep.tracking import logged_model, predictions, sweeps
from lockstep.tracking.predictions import Chosen
from lockstep.tracking.store import Store
from lockstep.training import networks, prediction

if TYPE_CHECKING:
    from lockstep.recorded import Run


class Ensemble:
    """Runs of a sweep whose probabilities are averaged, chosen by the validation set alone.

    Attributes:
        members: the runs, the one with the highest weight first.
        weights: of their probabilities; they add up to 1.
        best: the run with the highest validation accuracy.
        accuracy, val_accuracy: of the ensemble, on the test and the validation set.
    """

    def __init__(self, store: Store, sweep_id: str, chosen: Chosen, runs: Sequence["Run"]) -> None:
        of_id = {run.id: run for run in runs}
        self._store, self._sweep_id = store, sweep_id
        self.members = tuple(of_id[str(run.run_id)] for run in chosen.members)
        self.weights, self.best = chosen.weights, of_id[str(chosen.best.run_id)]
        self.accuracy, self.val_accuracy = (chosen.together[split].accuracy for split in ("test", "val"))

    @classmethod
    def of(cls, store: Store, sweep: sweeps.Sweep, runs: Sequence["Run"]) -> "Ensemble":
        """Choose it, see `lockstep.results.ensemble`.

        Raises:
            Refused: if there is no validation split, or the runs have no predictions.
        """
        chosen = predictions.choose(sweep, functools.partial(predictions.read, store))
        return cls(store, sweep.run_id, chosen, runs)

    @cached_property
    def _network(self) -> networks.Ensemble:
        return networks.Ensemble([run.network() for run in self.members], self.weights)

    def network(self) -> networks.Ensemble:
        """Return a torch.nn.Module in eval mode on the CPU: rows N x F to probabilities N x C.

        Raises:
            Refused: if the runs' data is not available any more.
        """
        return self._network

    def predict_proba(self, x_NxF: Any) -> NDArray[Any]:
        """Return each class's probability for rows as `Run.dataset` has them, N x C."""
        return prediction.probabilities(self._network, x_NxF)

    def predict(self, x_NxF: Any) -> NDArray[Any]:
        """Return the most probable class of each row, as an index."""
        classes_N: NDArray[Any] = self.predict_proba(x_NxF).argmax(axis=1)
        return classes_N

    def log_model(self) -> str:
        """Store it as an MLflow logged model of the sweep, as the winner is; return its URI, `models:/…`.

        Calling it again returns the same model.
        """
        data = self.best.dataset()
        names = data.description.class_names
        return logged_model.log_ensemble(
            self._store, self._sweep_id, self._network, data.x_test.numpy(), names
        )

    def __repr__(self) -> str:
        rows = zip(self.weights, self.members, strict=True)
        lines = [f"  {weight:6.1%}  {run.name}" for weight, run in rows]
        head = f"<Ensemble of {len(lines)}: val/accuracy {self.val_accuracy:.4f}, test/accuracy"
        return "\n".join([f"{head} {self.accuracy:.4f}", *lines]) + ">"
