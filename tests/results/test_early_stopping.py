"""The rule of early stopping, held against Keras' as it counts, and what a run then reports."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.results.early_stopping import best_epoch, has_ended
from lockstep.results.history import Epoch, Evaluation, History

VALUES = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=1, max_size=12)


def trainer(patience, monitor="val/loss", epochs=100):
    return SimpleNamespace(patience=patience, monitor=monitor, epochs=epochs)


def epoch_of(done, loss, accuracy, diverged=False):
    both = (Evaluation(done, "test", loss + 1, accuracy / 2), Evaluation(done, "val", loss, accuracy))
    return Epoch(np.array([loss]), np.array([accuracy]), () if diverged else both, 1.0, diverged, at=done)


def history_of(losses, accuracies=None):
    history = History()
    for done, (loss, accuracy) in enumerate(zip(losses, accuracies or losses, strict=True), 1):
        history.add(epoch_of(done, loss, accuracy))
    return history


@given(VALUES, st.integers(1, 4), st.sampled_from(["val/loss", "val/accuracy"]))
def test_a_run_stops_where_a_count_of_epochs_without_a_better_one_says(values, patience, monitor):
    """As in keras.callbacks.EarlyStopping.on_epoch_end: `wait` rises unless the value is better."""
    best, kept, wait = None, 0, 0
    for epochs, value in enumerate(values, 1):
        better = best is None or (value < best if monitor == "val/loss" else value > best)
        wait = 0 if better else wait + 1
        best, kept = (value, epochs) if better else (best, kept)
        history = history_of(values[:epochs])
        assert best_epoch(history, trainer(patience, monitor)) == kept
        assert has_ended(history, trainer(patience, monitor)) == (wait >= patience)
        if wait >= patience:
            break


def test_without_a_patience_all_epochs_are_trained_and_a_run_that_diverged_is_over():
    history = history_of([0.1, 0.2, 0.3])
    assert not has_ended(history, trainer(None))
    assert not has_ended(History(), trainer(1))
    assert has_ended(history, trainer(None, epochs=3))
    history.add(epoch_of(4, np.nan, 0.5, diverged=True))
    assert has_ended(history, trainer(9))


@pytest.mark.parametrize("restored", [None, 2])
def test_the_restored_epochs_figures_are_reported(restored):
    history = history_of([0.5, 0.1, 0.3], [0.2, 0.6, 0.8])
    history.restored_epoch = restored
    loss, accuracy, best = (0.3, 0.8, 0.4) if restored is None else (0.1, 0.6, 0.3)
    assert history.summary() == {
        **{"val/loss": loss, "val/accuracy": accuracy},
        **{"test/loss": loss + 1, "test/accuracy": accuracy / 2, "test/accuracy_best": best},
        "time/train_seconds": 3.0,
    }
