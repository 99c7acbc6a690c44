"""Values for readers."""

from dataclasses import replace
from datetime import datetime

import pytest
from helpers.swept import GRID, sweep_of

from lockstep.report import wording


def test_values_are_in_order_and_short():
    assert wording.ordered(["10", "9", "1e-3", "10"]) == ["1e-3", "9", "10"]
    assert wording.ordered(["relu", "gelu", ""]) == ["", "gelu", "relu"]
    assert wording.shown("0.2849610891322093") == "0.285"
    assert wording.shown("[256, 100]") == "[256, 100]"
    assert wording.shown("nan") == "nan"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "less than a second"),
        (1, "1 second"),
        (125.4, "2 minutes 5 seconds"),
        (3600, "1 hour"),
        (7261, "2 hours 1 minute 1 second"),
    ],
)
def test_durations_are_in_words(seconds, words):
    assert wording.duration(seconds) == words


def test_date_and_commit_are_in_words():
    at = int(datetime(2026, 11, 24, 10).timestamp() * 1000)
    sweep = replace(sweep_of(GRID), seconds=125.0, started_at=at, commit="1a2b3c4d5e6f")
    assert wording.when(sweep) == "24 November 2026, 2 minutes 5 seconds, commit 1a2b3c4"
    assert wording.when(replace(sweep, commit="")) == "24 November 2026, 2 minutes 5 seconds"
