"""A history of epochs that a search's rungs divide."""

import numpy as np

from lockstep.results.history import Epoch, Evaluation, History


def part(done, n, accuracy, is_part, diverged=False):
    evaluations = [Evaluation(done + n, split, 1 - accuracy, accuracy) for split in ("test", "val")]
    losses = np.full(n, 1 - accuracy)
    return Epoch(losses, losses, tuple(evaluations * (not diverged)), 0.5, diverged, done + n, "", is_part)


def history(*parts):
    made, done = History(), 0
    for n, accuracy, is_part in parts:
        made.add(part(done, n, accuracy, is_part))
        done += n
    return made


def test_an_evaluation_at_a_rung_is_none_after_an_epoch():
    """Epochs of 10 iterations; rungs after 5, 13 and 18."""
    whole = history((5, 0.1, True), (5, 0.2, False), (3, 0.9, True), (5, 0.7, True), (2, 0.4, False))
    assert (whole.iterations, whole.epochs, whole.rungs, whole.epoch_ends) == (20, 2, [5, 13, 18], [10, 20])
    assert [evaluation.iteration for evaluation in whole.of("val")] == [10, 20]
    assert len(whole.evaluations) == 10
    # Its summary is that of a run that never paused.
    expected = {"test/loss": 0.6, "test/accuracy": 0.4, "val/loss": 0.6, "val/accuracy": 0.4}
    assert whole.summary() == expected | {"test/accuracy_best": 0.4, "time/train_seconds": 2.5}
    whole.restored_epoch = 1
    assert whole.summary()["val/accuracy"] == whole.summary()["test/accuracy_best"] == 0.2


def test_a_run_pruned_amid_an_epoch_has_the_figures_of_its_rung():
    for parts, best in (([(5, 0.3, True)], 0.3), ([(10, 0.6, False), (5, 0.3, True)], 0.6)):
        pruned = history(*parts)
        assert pruned.summary()["val/accuracy"] == 0.3
        assert pruned.summary()["test/accuracy_best"] == best


def test_a_run_that_diverges_amid_an_epoch_has_no_end_there():
    diverged = history((10, 0.3, False))
    diverged.add(part(10, 4, 0.1, True, diverged=True))
    assert (diverged.diverged_at, diverged.rungs, diverged.epoch_ends) == (14, [], [10])
