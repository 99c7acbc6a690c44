"""The leaderboard as a table for a paper."""

import io
from dataclasses import replace

import pandas as pd
import pytest
from helpers.swept import sweep_of

from lockstep.report.formats import table

POINTS = [("0.1", "[64, 32]", 0.9), ("0.1", "[64, 32]", 0.94), ("0.01", "a_b|c", 0.8)]


@pytest.fixture
def sweep():
    found = sweep_of(POINTS, swept=("optim.lr", "model.hidden_dims"))
    return replace(found, command="python run.py -m a=1,2", commit="1a2b3c4d")


def test_csv_has_all_digits(sweep):
    text = table(sweep, "csv")
    assert text.splitlines()[:2] == ["# python run.py -m a=1,2", "# commit 1a2b3c4d"]
    first, second = pd.read_csv(io.StringIO(text), comment="#", dtype=str, keep_default_na=False).to_dict(
        "records"
    )
    assert (first["optim.lr"], first["model.hidden_dims"], first["n"]) == ("0.1", "[64, 32]", "2")
    assert float(first["test/accuracy mean"]) == pytest.approx(0.92)
    assert float(first["test/accuracy std"]) == pytest.approx(0.0282842712)
    assert (second["test/accuracy mean"], second["test/accuracy std"]) == ("0.8", "")


def test_latex_prints_names_and_values_as_they_are(sweep):
    lines = table(sweep, "latex").splitlines()
    assert lines[:2] == ["% python run.py -m a=1,2", "% commit 1a2b3c4d"]
    assert r"\begin{tabular}{llrr}" in lines
    assert r"lr & hidden\_dims & $n$ & test/accuracy \\" in lines
    assert r"0.1 & {[}64, 32{]} & 2 & $0.9200 \pm 0.0283$ \\" in lines
    assert r"0.01 & a\_b|c & 1 & $0.8000$ \\" in lines


def test_markdown_is_a_table_with_the_command_in_a_comment(sweep):
    lines = table(sweep, "markdown").splitlines()
    assert lines == [
        "<!-- python run.py -m a=1,2",
        "commit 1a2b3c4d -->",
        "",
        "| lr | hidden_dims | n | test/accuracy |",
        "| --- | --- | --: | --: |",
        "| 0.1 | [64, 32] | 2 | 0.9200 ± 0.0283 |",
        r"| 0.01 | a_b\|c | 1 | 0.8000 |",
    ]
    assert table(replace(sweep, command="a -->b"), "markdown").count("-->") == 1
