"""Events as they are written and read back, whole or cut short."""

import numpy as np
import pytest
from helpers.events import EVENTS, epoch
from hypothesis import given
from hypothesis import strategies as st

from lockstep.recovery import journal as journal_module
from lockstep.recovery.journal import Ended, Journal
from lockstep.results.history import Evaluation

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)


def same(a, b):
    if isinstance(a, Ended):
        return a == b
    return (
        np.array_equal(a.loss_T, b.loss_T, equal_nan=True)
        and np.array_equal(a.accuracy_T, b.accuracy_T, equal_nan=True)
        and repr((a.evaluations, a.seconds, a.diverged, a.at, a.canary))
        == repr((b.evaluations, b.seconds, b.diverged, b.at, b.canary))
    )


@given(st.lists(NUMBERS, min_size=1, max_size=5), NUMBERS)
def test_numbers_come_back_bit_for_bit(losses, value):
    event = epoch(losses, [Evaluation(3, "test", value, value)])
    assert same(journal_module._event(journal_module._line(event)), event)


def test_events_come_back_in_order_each_once(tmp_path):
    writer, reader = Journal(tmp_path / "journal"), Journal(tmp_path / "journal")
    assert list(reader.unread()) == []
    read = []
    for event in EVENTS:
        writer.append(event)
        read += reader.unread()
        assert list(reader.unread()) == []
    assert all(map(same, read, EVENTS))
    assert len(read) == len(list(Journal(tmp_path / "journal").unread())) == len(EVENTS)


def test_a_line_cut_short_does_not_count_and_is_mended(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.mend()  # there is none yet
    journal.append(EVENTS[0])
    whole = path.read_bytes()
    journal.append(EVENTS[1])
    for end in range(len(whole), len(path.read_bytes()), 7):
        cut = tmp_path / f"cut-{end}"
        cut.write_bytes(path.read_bytes()[:end])
        [event] = Journal(cut).unread()
        assert same(event, EVENTS[0])
        Journal(cut).mend()
        assert cut.read_bytes() == whole
        Journal(cut).append(EVENTS[3])
        assert len(list(Journal(cut).unread())) == 2


def test_a_line_that_is_written_in_two_parts_is_read_when_it_is_whole(tmp_path):
    journal, reader = Journal(tmp_path / "whole"), Journal(tmp_path / "parts")
    journal.append(EVENTS[0])
    line = journal.path.read_bytes()
    reader.path.write_bytes(line[:20])
    assert list(reader.unread()) == []
    reader.path.write_bytes(line)
    assert len(list(reader.unread())) == 1


@pytest.mark.skipif(not hasattr(journal_module.os, "fork"), reason="needs /dev/full")
def test_a_full_disk_is_an_error():
    with pytest.raises(OSError, match="No space left on device"):
        Journal(journal_module.Path("/dev/full")).append(EVENTS[0])
