"""Colours of runs."""

import colorsys
import itertools

from lockstep.tracking.colors import COLOR, FIRST, colors_of


def test_a_run_keeps_its_colour_and_no_other_gets_it():
    found = colors_of([("a", {}), ("b", {COLOR: FIRST[0]}), ("c", {}), ("d", {COLOR: "#123456"})])
    assert found == {"a": FIRST[1], "b": FIRST[0], "c": FIRST[2], "d": "#123456"}


def test_runs_of_two_sweeps_that_have_one_colour_get_two():
    found = colors_of([("a", {COLOR: FIRST[0]}), ("b", {COLOR: FIRST[1]}), ("c", {COLOR: FIRST[0]})])
    assert found == {"a": FIRST[0], "b": FIRST[1], "c": FIRST[2]}


def test_of_many_runs_none_looks_like_another():
    found = colors_of([(str(k), {}) for k in range(50)]).values()
    assert len(set(found)) == 50
    rgb = [[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in found]
    assert all(0.3 < colorsys.rgb_to_hls(*color)[1] < 0.75 for color in rgb)  # on light, and on dark
    pairs = itertools.combinations(rgb[:16], 2)
    assert min(sum(abs(x - y) for x, y in zip(a, b, strict=True)) for a, b in pairs) > 0.1
