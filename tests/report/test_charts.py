"""Interactive figures: the values they hold."""

import numpy as np
import pytest

from lockstep.report import charts
from lockstep.results.run_result import RunResult
from lockstep.results.winner import Ranking, Standings
from lockstep.tracking.sweeps import Sweep

BY_ACCURACY = Ranking("test/accuracy")


def sweep_of(points, swept=("optim.lr", "model.width"), ranking=BY_ACCURACY, pruned=()):
    runs = tuple(
        RunResult(
            name=f"run {k}",
            run_key=str(k),
            data_digest="",
            params=dict(zip(swept, values, strict=True)),
            overrides=(),
            status="FINISHED",
            metrics={ranking.metric: score},
            pruned_at=1 if k in pruned else None,
            run_id=str(k),
        )
        for k, (*values, score) in enumerate(points)
    )
    return Sweep("p", "sweep", "mnist", ("1",), "", "", 1.0, {}, Standings(runs, ranking), swept, None)


GRID = [("0.1", "32", 0.8), ("0.1", "64", 0.9), ("0.01", "32", 0.6), ("0.01", "64", 0.7)]


def test_a_grid_of_two_keys_is_a_heatmap_of_means():
    chart = charts.effects(sweep_of([*GRID, ("0.1", "32", 0.84)]))  # as of another seed
    [heatmap] = chart.figure.data
    assert heatmap.type == "heatmap"
    assert (list(heatmap.x), list(heatmap.y)) == (["0.01", "0.1"], ["32", "64"])
    np.testing.assert_allclose(np.array(heatmap.z, float), [[0.6, 0.82], [0.7, 0.9]])
    assert "width 32: lr 0.01 0.6000, lr 0.1 0.8200" in chart.text


def test_without_a_whole_grid_each_key_has_its_points():
    chart = charts.effects(sweep_of(GRID[:3]))
    assert [trace.type for trace in chart.figure.data] == ["scatter", "scatter"]
    of_lr, of_width = chart.figure.data
    assert sorted(zip(of_lr.x, of_lr.y, strict=True)) == [(0.01, 0.6), (0.1, 0.8), (0.1, 0.9)]
    assert sorted(zip(of_width.x, of_width.y, strict=True)) == [(32, 0.6), (32, 0.8), (64, 0.9)]


def test_importance_goes_to_what_the_score_depends_on():
    generator = np.random.default_rng(0)
    points = [
        (repr(lr), str(width), 1 - abs(np.log10(lr) + 2) / 10)
        for lr, width in zip(10 ** generator.uniform(-3, 0, 60), generator.integers(10, 90, 60), strict=True)
    ]
    chart, shares = charts.importances(sweep_of(points))
    assert shares["optim.lr"] > 0.7  # a forest's trees split by the other key at times
    assert sum(shares.values()) == pytest.approx(1)
    assert chart.figure.data[0].y[-1] == "lr"  # on top
    assert charts.importances(sweep_of(points[:3])) == (None, {})


def test_categories_count_for_importances_too():
    points = [
        (act, str(width), 0.9 if act == "relu" else 0.5) for act in ("relu", "tanh") for width in range(5)
    ]
    _, shares = charts.importances(sweep_of(points, swept=("model.activation", "model.width")))
    assert shares["model.activation"] > 0.7


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
    importance, shares = charts.importances(sweep)
    assert sum(shares.values()) == pytest.approx(1)
    assert "of 4 runs" in importance.text


def test_where_a_loss_is_minimised_the_least_is_the_best():
    sweep = sweep_of([*GRID, ("0.1", "16", 0.1)], ranking=Ranking("val/loss", maximize=False), pruned=(4,))
    assert [run.name for run in sweep.compared] == ["run 2", "run 3", "run 0", "run 1", "run 4"]
    line = charts.parallel_coordinates(sweep).figure.data[0].line
    assert (line.reversescale, list(line.color)) == (True, [0.6, 0.7, 0.8, 0.9, 0.1])
