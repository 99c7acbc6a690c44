"""The chart of the columns that the best run's accuracy rests on."""

import json

from lockstep.report import columns
from lockstep.results.run_result import RunResult
from lockstep.tracking import recorded_run

RUN = RunResult("a run", "1", "", {}, (), "FINISHED", {}, run_id="1")


def chart(found, tmp_path, monkeypatch):
    path = tmp_path / "importance.json"
    path.write_text(json.dumps(found))
    monkeypatch.setattr(recorded_run, "download", lambda *_: path)
    return columns.importance(None, RUN, tmp_path)


def test_columns_whose_names_are_numbers_keep_a_bar_each(tmp_path, monkeypatch):
    found = chart({"2020": [0.5, 0.01], "0": [0.25, 0.02], "a<b": [0.125, 0]}, tmp_path, monkeypatch)
    [bars] = found.figure.data
    assert (list(bars.y), list(bars.x)) == (["a&lt;b", "0", "2020"], [0.125, 0.25, 0.5])
    assert found.figure.layout.yaxis.type == "category"
    assert "among up to 2,000 test instances: 2020 0.5000, 0 0.2500, a<b 0.1250." in found.text
