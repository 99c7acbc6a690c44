"""Interactive figures: the values they hold."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.swept import GRID, sweep_of

from lockstep.report import charts
from lockstep.results.winner import Ranking


def test_parallel_coordinates_hold_every_run_by_its_place():
    [lines] = charts.parallel_coordinates(sweep_of(GRID)).figure.data
    lr, width, score = lines.dimensions
    best_first = sorted(GRID, key=lambda point: -point[2])
    assert [lr.ticktext[int(place)] for place in lr["values"]] == [point[0] for point in best_first]
    assert [width.ticktext[int(place)] for place in width["values"]] == [point[1] for point in best_first]
    assert list(score["values"]) == [0.9, 0.8, 0.7, 0.6]
    many = [(f"0.{digits}", "32", 0.5) for digits in range(11, 30)]
    lr, *_ = charts.parallel_coordinates(sweep_of(many)).figure.data[0].dimensions
    assert lr.ticktext is None
    assert sorted(lr["values"]) == sorted(float(point[0]) for point in many)
    assert charts.parallel_coordinates(sweep_of(GRID[:1])) is None


def test_pruned_runs_are_shown_with_their_last_score():
    points = [("0.25", "32", 0.9), ("0.1", "64", 0.8), ("0.5", "16", 0.5), ("0.01", "8", 0.7)]
    whole, sweep = sweep_of(points), sweep_of(points, pruned=(2, 3))
    assert [run.name for run in sweep.compared] == ["run 0", "run 1", "run 3", "run 2"]
    parallel = charts.parallel_coordinates(sweep)
    assert list(parallel.figure.data[0].dimensions[-1]["values"]) == [0.9, 0.8, 0.7, 0.5]
    assert "Pruned runs" in parallel.text
    assert "Pruned runs" not in charts.parallel_coordinates(whole).text


def test_where_a_loss_is_minimised_the_least_is_the_best():
    sweep = sweep_of([*GRID, ("0.1", "16", 0.1)], ranking=Ranking("val/loss", maximize=False), pruned=(4,))
    assert [run.name for run in sweep.compared] == ["run 2", "run 3", "run 0", "run 1", "run 4"]
    line = charts.parallel_coordinates(sweep).figure.data[0].line
    assert (line.reversescale, list(line.color)) == (True, [0.6, 0.7, 0.8, 0.9, 0.1])


@pytest.mark.parametrize(
    ("values", "scales", "expected"),
    [
        ((0.05, 0.1, 1), {"optim.lr": "log"}, True),
        ((1e-3, 0.1, 0.4), {"optim.lr": "linear"}, False),
        ((1e-3, 0.1, 0.4), None, True),  # a store of an earlier version: a guess
        ((0.05, 0.1, 0.4), None, False),
        ((0.001, 0.01, 0.1), {}, True),  # a grid: as its values are spaced
        ((64, 128, 256, 512), {}, True),
        ((1, 2, 3, 100), {}, True),
        ((10, 20, 30), {}, False),
        ((0.01, 0.05, 0.1), {}, False),
        ((0.001, 0.1), {}, False),
        ((0, 0.1, 0.2), {"optim.lr": "linear"}, False),
    ],
)
def test_an_axis_is_logarithmic_as_it_was_searched(values, scales, expected):
    sweep = replace(sweep_of(GRID), scales=scales)
    assert charts.is_log(sweep, "optim.lr", values) is expected


def test_many_values_searched_on_a_log_scale_have_a_log_axis():
    many = [(f"0.{digits}", "32", 0.5) for digits in range(11, 30)]
    sweep = replace(sweep_of(many), scales={"optim.lr": "log"})
    lr, *_ = charts.parallel_coordinates(sweep).figure.data[0].dimensions
    assert sorted(10**value for value in lr["values"]) == pytest.approx(
        sorted(float(point[0]) for point in many)
    )
    assert dict(zip(lr.ticktext, lr.tickvals, strict=True))["0.2"] == pytest.approx(np.log10(0.2))
    assert (lr.ticktext[0], lr.ticktext[-1]) == ("0.11", "0.29")
    assert list(lr.tickvals) == sorted(lr.tickvals)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.2, 0.6, None),  # Plotly's own: 0.2, 0.3 …
        (0.03, 0.7, ["0.05", "0.1", "0.2", "0.5"]),
        (1e-5, 0.1, ["1e-05", "0.0001", "0.001", "0.01", "0.1"]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_whole_numbers(low, high, texts):
    axis = charts.log_axis(low, high)
    assert axis["type"] == "log"
    within = zip(axis.get("tickvals", ()), axis.get("ticktext", ()), strict=True)
    assert [text for value, text in within if low <= value <= 1.0000001 * high] == (texts or [])
