"""Events as they are written and read back, whole or cut short."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.events import EVENTS, epoch
from hypothesis import given
from hypothesis import strategies as st

from lockstep.recovery import journal as journal_module
from lockstep.recovery.journal import Ended, Journal
from lockstep.recovery.seal import Damaged
from lockstep.results.history import Evaluation

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)


def same(a, b):
    if isinstance(a, Ended):
        return a == b
    return (
        np.array_equal(a.loss_T, b.loss_T, equal_nan=True)
        and np.array_equal(a.accuracy_T, b.accuracy_T, equal_nan=True)
        and repr((a.evaluations, a.seconds, a.diverged, a.at, a.canary, a.is_part))
        == repr((b.evaluations, b.seconds, b.diverged, b.at, b.canary, b.is_part))
    )


@given(st.lists(NUMBERS, min_size=1, max_size=5), NUMBERS, st.booleans())
def test_numbers_come_back_bit_for_bit(losses, value, is_part):
    event = replace(epoch(losses, [Evaluation(3, "test", value, value)]), is_part=is_part)
    assert same(journal_module._event(journal_module._text(event)), event)


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
    journal = Journal(tmp_path / "run" / "journal")
    journal.path.parent.mkdir()
    journal.mend()  # there is none yet
    journal.append(EVENTS[0])
    whole = journal.path.read_bytes()
    journal.append(EVENTS[1])
    both = journal.path.read_bytes()
    for end in range(len(whole), len(both), 7):
        journal.path.write_bytes(both[:end])
        [event] = Journal(journal.path).unread()
        assert same(event, EVENTS[0])
        journal.mend()
        assert journal.path.read_bytes() == whole
        journal.append(EVENTS[3])
        assert len(list(Journal(journal.path).unread())) == 2


def test_a_line_that_is_written_in_two_parts_is_read_when_it_is_whole(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.append(EVENTS[0])
    line = journal.path.read_bytes()
    journal.path.write_bytes(line[:20])
    assert list(journal.unread()) == []
    journal.path.write_bytes(line)
    assert len(list(journal.unread())) == 1


def damaged_lines(lines, other):
    """Ways to damage a journal of three lines, by name: the lines then, and how many are whole."""
    digit = lines[1].index(b"2.", 30)
    yield "changed", [lines[0], lines[1][:digit] + b"3" + lines[1][digit + 1 :], lines[2]], 1
    yield "left out", [lines[0], lines[2]], 1
    yield "repeated", [lines[0], lines[0], lines[1]], 1
    yield "swapped", [lines[1], lines[0], lines[2]], 0
    yield "of another run", [lines[0], other[1], lines[2]], 1
    yield "garbage", [lines[0], b"\xff\x00 garbage\n", lines[2]], 1
    yield "without its seal", [lines[0], b"{" + lines[1].partition(b"{")[2].replace(b"2.", b"x", 1)], 1


def test_an_event_that_is_not_what_was_written_there_is_not_believed(tmp_path):
    journals = [Journal(tmp_path / name / "journal") for name in ("a", "b")]
    for journal in journals:
        journal.path.parent.mkdir()
        for loss in (1.5, 2.5, 3.5):
            journal.append(epoch([loss]))
    lines, other = (journal.path.read_bytes().splitlines(keepends=True) for journal in journals)
    for what, written, n_whole in damaged_lines(lines, other):
        journals[0].path.write_bytes(b"".join(written))
        reader, found = Journal(journals[0].path), []
        with pytest.raises(Damaged):
            for event in reader.unread():
                found.append(event.loss_T[0])
        assert found == [1.5][:n_whole], what
        assert reader.read_bytes == len(lines[0]) * n_whole, what


def test_lines_of_the_first_version_are_read_and_go_on_with_sealed_ones(tmp_path):
    journal = Journal(tmp_path / "journal")
    journal.path.write_bytes(journal_module._text(EVENTS[0]) + b"\n")
    journal.append(EVENTS[1])
    assert all(map(same, journal.unread(), EVENTS[:2]))


@pytest.mark.skipif(not hasattr(journal_module.os, "fork"), reason="needs /dev/full")
def test_a_full_disk_is_an_error():
    with pytest.raises(OSError, match="No space left on device"):
        Journal(journal_module.Path("/dev/full")).append(EVENTS[0])
