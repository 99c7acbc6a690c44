"""Which trials of a search train next."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lockstep.results.history import Evaluation, History
from lockstep.search.queues import Queue, Queues, TrialRun


def queue(rung, data="digits"):
    return Queue(rung, 4 * max(1, rung), data, "cpu", "float32")


ITERATIONS = {rung: 17 * rung for rung in (1, 4, 16)}


def waiting(array_size, n_workers, rungs):
    """Queues in which trials 0, 1, … wait at these rungs."""
    queues = Queues(array_size, n_workers)
    for number, rung in enumerate(rungs):
        entry = SimpleNamespace(history=SimpleNamespace(iterations=17 * rung))
        queues.add(TrialRun(SimpleNamespace(number=number), entry, ITERATIONS, rung), queue(rung))
    return queues


def drained(queues, more):
    """The arrays that are taken until none is ready: each one's rung, and the numbers of its trials."""
    arrays = []
    while (ready := queues.ready(more)) is not None:
        arrays.append((ready.rung, [run.trial.number for run in queues.take(ready, more)]))
    return arrays


def test_a_full_queue_goes_first_then_new_trials():
    assert drained(waiting(2, 1, [0, 0, 1, 1, 4, 0]), more=True) == [(1, [2, 3]), (0, [0, 1]), (0, [5])]


def test_promoted_trials_wait_for_others_while_there_may_be_more():
    queues = waiting(3, 1, [1, 4, 1])
    assert drained(queues, more=True) == []
    assert drained(queues, more=False) == [(1, [0, 2]), (4, [1])]


def test_at_the_end_the_workers_share_what_is_left():
    assert drained(waiting(8, 2, [4] * 4), more=False) == [(4, [0, 1]), (4, [2]), (4, [3])]


def test_other_data_is_another_queue():
    queues = Queues(2, 1)
    for number, data in enumerate(("digits", "mnist", "digits")):
        queues.add(TrialRun(SimpleNamespace(number=number), None), queue(0, data))
    assert drained(queues, more=True) == [(0, [0, 2]), (0, [1])]


def test_those_that_have_paused_already_are_judged_not_trained():
    queues = waiting(8, 1, [0, 0])
    queues.add(TrialRun(SimpleNamespace(number=2), at_its_rung(patience=None), ITERATIONS, 1), queue(1))
    [paused] = queues.take_paused()
    assert [run.trial.number for run in paused] == [2]
    assert drained(queues, more=False) == [(0, [0, 1])]


def test_a_trial_that_stopped_early_at_its_rung_has_not_paused_there():
    for patience, has_paused in ((3, True), (2, False)):  # its best epoch is the second of four
        queues = waiting(8, 1, [])
        queues.add(TrialRun(SimpleNamespace(number=2), at_its_rung(patience), ITERATIONS, 1), queue(1))
        assert bool(queues.take_paused()) == has_paused


def at_its_rung(patience):
    losses = (0.5, 0.4, 0.4, 0.6)
    validated = [Evaluation(epoch, "val", loss, 0.5) for epoch, loss in enumerate(losses, 1)]
    trainer = SimpleNamespace(epochs=10, patience=patience, monitor="val/loss")
    history = History(np.zeros(4 * 17), epochs=4, evaluations=validated)
    return SimpleNamespace(history=history, config=SimpleNamespace(trainer=trainer))


@given(st.integers(1, 9), st.integers(1, 4), st.lists(st.sampled_from([0, 1, 4]), max_size=30))
def test_every_trial_is_taken_once_in_arrays_that_fit(array_size, n_workers, rungs):
    arrays = drained(waiting(array_size, n_workers, rungs), more=False)
    assert sorted(number for _, numbers in arrays for number in numbers) == list(range(len(rungs)))
    assert all(len(numbers) <= array_size for _, numbers in arrays)
    assert all(rungs[number] == rung for rung, numbers in arrays for number in numbers)
