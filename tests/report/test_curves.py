"""Learning curves: their lines, colours and axes."""

import math
from dataclasses import replace

import pytest

from lockstep.report.curves import learning_curves
from lockstep.results.run_result import RunResult

COLORS = {"1": "#d55e00", "0": "#0072b2", "2": "#009e73"}


def runs(*ids):
    return [RunResult(f"run {i}", i, "", {}, (), "FINISHED", {}, run_id=i) for i in ids]


def line(*values):
    return [(10 * (index + 1), value) for index, value in enumerate(values)]


def test_a_run_has_one_colour_in_all_panels_and_the_best_is_thick_and_on_top():
    curves = {
        "train/loss": {"1": line(0.5, 0.25), "0": line(1.0, 0.8)},
        "val/loss": {"1": [], "0": []},
        "test/accuracy": {"1": line(0.9), "0": line(0.8)},
    }
    chart = learning_curves(runs("1", "0"), curves, COLORS)
    traces = chart.figure.data
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in traces[:2]] == [
        ("run 0", [10, 20], [1.0, 0.8]),
        ("run 1", [10, 20], [0.5, 0.25]),
    ]
    assert [trace.line.color for trace in traces] == ["#0072b2", "#d55e00"] * 2
    assert traces[1].line.width > traces[0].line.width
    assert [trace.mode for trace in traces] == ["lines", "lines", "markers", "markers"]
    assert [trace.showlegend for trace in traces] == [True, True, False, False]  # each named once
    assert chart.figure.layout.showlegend
    assert "train/loss and test/accuracy" in chart.text
    assert learning_curves(runs("0"), {"train/loss": {"0": []}}, COLORS) is None


def test_a_restored_epoch_is_a_circle_on_its_runs_curve_of_evaluations():
    one, other, third = runs("1", "0", "2")
    curves = {
        "train/loss": {i: line(2.0, 1.0, 0.5, 0.4) for i in "102"},
        "val/accuracy": {"1": line(0.7, 0.9, 0.8), "0": line(0.5, 0.6, 0.7), "2": line(0.4)},
    }
    # The third has fewer points than epochs: its store lacks some.
    stopped = [replace(one, restored_epoch=2), other, replace(third, restored_epoch=3)]
    chart = learning_curves(stopped, curves, COLORS)
    marks = [trace for trace in chart.figure.data if trace.marker.symbol == "circle-open"]
    [mark] = marks
    assert (list(mark.x), list(mark.y)) == ([20], [0.9])
    assert (mark.xaxis, mark.legendgroup, mark.marker.color) == ("x2", "1", "#d55e00")
    assert mark.hovertemplate == "%{y:.4f} after epoch 2, restored<extra>run 1</extra>"
    assert mark.showlegend is False
    assert chart.text.endswith("A circle marks the epoch whose weights a run restored.")
    plain = learning_curves([one, other], curves, COLORS)
    assert "circle" not in plain.text and len(plain.figure.data) == 4


def test_many_runs_have_no_legend():
    ids = [str(i) for i in range(11)]
    chart = learning_curves(runs(*ids), {"train/loss": {i: line(1.0, 0.5) for i in ids}}, {})
    assert chart.figure.layout.showlegend is False


def test_neither_a_diverged_run_nor_the_first_epochs_set_the_axis():
    curves = {
        "train/loss": {
            "1": line(2.0, 1.0, 0.5, 0.25),
            "0": line(2.3, 1.5, 1.0, 0.5),
            "2": line(2.3, 1e6, math.inf, math.nan),
        },
        "test/accuracy": {"1": line(0.9, 0.95, 0.98), "0": line(0.7, 0.92, 0.93), "2": line(0.1, 0.1, 0.1)},
    }
    chart = learning_curves(runs("1", "0", "2"), curves, COLORS)
    axes = chart.figure.layout
    low, high = axes.yaxis.range
    assert axes.yaxis.type == "log"
    assert (10**low, 10**high) == pytest.approx((0.25, 2.3), rel=0.2)
    assert axes.yaxis2.range == pytest.approx((0.92, 0.98), abs=0.005)
    assert "outside" in chart.text
    whole = {"test/accuracy": {"1": line(0.9, 0.94, 0.95), "0": line(0.9, 0.9)}}
    chart = learning_curves(runs("1", "0"), whole, COLORS)
    assert chart.figure.layout.yaxis.range == pytest.approx((0.9, 0.95), abs=0.005)
    assert "outside" not in chart.text
