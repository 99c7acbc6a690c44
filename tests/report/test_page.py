"""Reports of real sweeps: python -m lockstep report."""

import base64
import html
import io
import json
import re
import shlex
import shutil
import sys

import mlflow
import numpy as np
import pytest
from helpers.clone import Clone
from helpers.numerics import BEFORE, TODAY
from helpers.records import recorded_sweep
from PIL import Image

from lockstep.recorded import Sweep
from lockstep.report import charts, choices, evidence, page
from lockstep.tracking import sweeps
from lockstep.tracking.store import Store

MEGABYTES = 6
SWEEP = (
    *("-m", "data=digits", "data.batch_size=128", "trainer.epochs=2", "hydra.launcher.n_jobs=1"),
    *("optim.lr=choice(0.1, 0.01)", "model.hidden_dim1=16,32", "seed=0,1"),
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, empty_store):
    """A sweep of a grid, each of its runs with two seeds, and what it printed."""
    clone = Clone(tmp_path_factory.mktemp("swept"), empty_store)
    code, out, err = clone.quick(*SWEEP)
    assert (code, err) == (0, "")
    return clone, out


def runs_of(clone):
    client = mlflow.MlflowClient(clone.store)
    found = client.search_runs([client.get_experiment_by_name("digits").experiment_id], max_results=1000)
    parent = next(run for run in found if run.data.tags["lockstep.kind"] == "sweep")
    return client, parent, [run for run in found if run.data.tags["lockstep.kind"] == "run"]


def report_of(clone):
    [path] = (clone.root / "outputs" / "sweeps").rglob("report.html")
    return path


def test_a_sweep_leaves_a_report_that_stands_alone(swept):
    clone, out = swept
    path = report_of(clone)
    assert f"Report: {path}" in out
    text = path.read_text()
    assert path.stat().st_size < MEGABYTES * 10**6
    body, _, script = text.partition("<script>")
    assert set(re.findall(r'(?:src|href)="(\w+):', body)) == {"data", "http"}
    assert all(link.startswith("http://127.0.0.1:5000/#/") for link in re.findall(r'href="(http[^"]*)', body))
    assert "<link" not in body.replace('<link rel="icon" href="data:,">', "")
    assert not re.search(r"<script[^>]+src", text)
    assert "Plotly.react" in script


def test_its_leaderboard_is_in_order_and_has_links_to_the_runs(swept):
    clone, _ = swept
    _, _, runs = runs_of(clone)
    text = report_of(clone).read_text().partition("<script>")[0]
    [body] = re.findall(r'<table id="runs">.*?<tbody>(.*?)</tbody>', text, re.S)
    rows = body.split("<tr")[1:]
    assert len(rows) == 4  # eight runs, two seeds each
    # After the place: test accuracy, the two swept values, test loss, seconds.
    means = [float(re.findall(r'<td data-value="([^"]*)"', row)[1]) for row in rows]
    first, *_ = linked = [list(dict.fromkeys(re.findall(r"/runs/([0-9a-f]{32})", row))) for row in rows]
    assert [run_id[:8] for run_id in first] == re.findall(r"seed \d: <span[^>]*><a[^>]*>(\w{8})</a>", rows[0])
    assert sorted(run_id for of_row in linked for run_id in of_row) == sorted(run.info.run_id for run in runs)
    accuracy = {run.info.run_id: run.data.metrics["test/accuracy"] for run in runs}
    expected = [np.mean([accuracy[run_id] for run_id in of_row]) for of_row in linked]
    assert expected == sorted(expected, reverse=True)
    assert means == pytest.approx(expected)


def test_it_shows_the_best_runs_spaces_with_words_for_who_cannot_see_them(swept):
    text = report_of(swept[0]).read_text()
    pictures = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]+)"', text)
    texts = [text.partition(" of ")[0] for _, text in pictures]
    spaces = ["Input space", "Hidden layer 1", "Hidden layer 2", "Hidden layer 2", "Hidden layer 2"]
    assert texts == [*spaces, *["Confusion matrix", "Most confident mistakes"] * 2]
    for encoded, _ in pictures:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert image.width == 640
            assert np.asarray(image).std() > 10  # something is drawn
    for name in ("parallel", "curves", "importance", "effects"):
        [chart] = re.findall(rf'id="{name}-data">(.*?)</script>', text, re.S)
        assert json.loads(chart.replace("<\\/", "</"))["data"]
        assert re.search(rf'id="{name}" class="chart" role="img" aria-label="[^"]{{20,}}"', text)


def test_the_parent_run_says_what_was_found(swept):
    client, parent, runs = runs_of(swept[0])
    assert {entry.path for entry in client.list_artifacts(parent.info.run_id)} == {
        "members.json",
        "report.html",
    }
    best = max(
        np.mean([a.data.metrics["test/accuracy"], b.data.metrics["test/accuracy"]])
        for a in runs
        for b in runs
        if a is not b
        and all(a.data.params[key] == b.data.params[key] for key in ("optim.lr", "model.hidden_dim1"))
    )
    assert parent.data.metrics["best/test/accuracy"] == pytest.approx(best)
    assert parent.data.metrics["runs"] == 8
    assert "8 runs on digits over optim.lr (0.01, 0.1)" in parent.data.tags["mlflow.note.content"]
    environment = json.loads(parent.data.tags["lockstep.environment"])
    assert environment["python"] == sys.version.split()[0]
    of_run = runs[0].data
    assert f"lr {float(of_run.params['optim.lr']):g}" in of_run.tags["mlflow.note.content"]
    assert 0.5 < of_run.metrics["space/input/knn_accuracy"] <= 1
    colors = {run.data.tags["mlflow.runColor"] for run in runs}  # of the report, and of MLflow's charts
    assert len(colors) == 8
    assert all(f"border-color: {color}" in report_of(swept[0]).read_text() for color in colors)


def test_to_repeat_it_paste_the_command_that_it_shows(swept):
    text = report_of(swept[0]).read_text()
    [shown] = re.findall(r"<pre[^>]*>(.*?)</pre>", text, re.S)
    assert shlex.split(html.unescape(shown)) == ["python", "run.py", *SWEEP]


def test_the_best_run_can_be_trained_alone(swept):
    clone, out = swept
    [line] = [line for line in out.splitlines() if line.startswith("To train the best run alone: ")]
    words = shlex.split(line.partition(": ")[2])
    client, parent, _ = runs_of(clone)
    best = client.get_run(parent.data.tags["lockstep.winner"])
    assert words == ["python", "run.py", *best.data.tags["lockstep.overrides"].split()]
    assert best.data.params["seed"] == "0"


def test_a_sweep_of_which_no_run_came_to_a_score_has_a_report(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    parent, _ = recorded_sweep(store, [({"optim.lr": "9"}, {}, {"lockstep.reason": "diverged"}, "FAILED")])
    text = page.build(store, sweeps.read(store, parent))
    assert "No run was trained to its end." in text
    assert "FAILED: diverged" in text


def test_runs_with_a_patience_have_their_best_epoch_in_the_leaderboard(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    tags = {"lockstep.stopped_at": "9", "lockstep.restored_epoch": "7"}
    runs = [
        ({"trainer.patience": "2"}, {"val/accuracy": 0.9}, tags, "FINISHED"),
        ({"trainer.patience": "null"}, {"val/accuracy": 0.8}, {}, "FINISHED"),
    ]
    parent, _ = recorded_sweep(store, runs)
    text = page.build(store, sweeps.read(store, parent))
    assert re.findall(r'<button type="button">(.*?)</button>', text)[-3:-1] == ["best epoch", "run"]
    assert re.findall(r'<td data-value="7">(.*?)</td>', text) == ["7"]
    assert "1 stopped early." in text


def test_runs_of_an_earlier_numerics_version_are_named(tmp_path, empty_store):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    versions = [{}, {}, {"lockstep.numerics_version": str(TODAY)}]
    runs = [({"a": str(k)}, {"test/accuracy": 0.9}, tag, "FINISHED") for k, tag in enumerate(versions)]
    sweep = sweeps.read(store, recorded_sweep(store, runs)[0])
    says_so = (
        "2 runs are of numerics version 2, which an earlier Lockstep had: trained now, the last digits may"
        " differ (a=0, a=1)."
    )
    assert f'<p class="soft">{says_so}</p>' in page.build(store, sweep)
    loaded = Sweep(store, sweep)
    assert [run.numerics_version for run in loaded.runs] == [BEFORE, BEFORE, TODAY]
    assert repr(loaded).splitlines()[-2] == says_so
    assert f"<p>{says_so}</p>" in loaded._html()


@pytest.mark.parametrize("have", [(), ("best",), ("worst",), ("best", "worst")])
def test_pictures_that_runs_lack_are_left_out(tmp_path, empty_store, have):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    runs = [({"optim.lr": str(lr)}, {"test/accuracy": lr}, {}, "FINISHED") for lr in (0.9, 0.1)]
    parent, ids = recorded_sweep(store, runs)
    for name, run_id in zip(("best", "worst"), ids, strict=True):
        if name in have:
            store.client.log_dict(run_id, {"input": [0.5, 0.25]}, "pca/explained_variance.json")
            store.client.log_image(run_id, np.zeros((4, 4, 3), np.uint8), "pca/input.png")
    text = page.build(store, sweeps.read(store, parent))
    assert ("Best against worst" in text) == (len(have) == 2)
    assert text.count("<img") == {(): 0, ("best",): 1, ("worst",): 0, ("best", "worst"): 3}[have]


@pytest.mark.parametrize(
    ("module", "name", "lost"),
    [
        (choices, "importances", "importances"),
        (charts, "parallel_coordinates", "the chart of all runs"),
        (choices, "effects", "the chart of effects"),
        (page, "_curves", "learning curves"),
        (page, "_pictures", "pictures of optim.lr=0.9"),
        (page, "_mistakes", "mistakes of optim.lr=0.9"),
        (evidence, "_networks", "what is more than chance"),
    ],
)
def test_a_part_of_the_report_that_cannot_be_made_costs_no_other(
    tmp_path, empty_store, monkeypatch, caplog, module, name, lost
):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    store = Store(f"sqlite:///{tmp_path}/mlflow.db")
    runs = [({"optim.lr": str(lr)}, {"test/accuracy": lr}, {}, "FINISHED") for lr in (0.9, 0.1)]
    parent, _ = recorded_sweep(store, runs)
    monkeypatch.setattr(module, name, lambda *_: 1 / 0)
    text = page.build(store, sweeps.read(store, parent))
    assert '<table id="runs">' in text
    assert f"the report lacks {lost}: division by zero" in caplog.text


def test_a_report_is_made_again_from_the_store_alone(swept):
    clone, _ = swept
    path = report_of(clone)
    before = path.read_bytes()
    path.unlink()
    try:
        code, out, err = clone.verb("report", str(path.parent))
        assert (code, out.strip(), err) == (0, str(path), "")
        assert path.read_bytes() == before
    finally:
        path.write_bytes(before)  # other tests read it
    _, parent, [run, *_] = runs_of(clone)
    code, out, _ = clone.verb("report", parent.info.run_id)
    assert code == 0
    assert (clone.root / "outputs" / "reports" / parent.info.run_id / "report.html").read_bytes() == before
    for wrong, message in (
        ("nope", "nope"),
        (run.info.run_id, "not a sweep's parent"),
        ("src", "sweep.json"),
    ):
        code, out, err = clone.verb("report", wrong)
        assert (code, out) == (2, "")
        assert message in err
        assert "Traceback" not in err


def test_the_verb_prints_tables_and_compares(swept):
    clone, _ = swept
    _, parent, runs = runs_of(clone)
    start = parent.info.run_id[:8]
    code, out, err = clone.verb("report", start, "--format", "markdown")
    assert (code, err) == (0, "")
    assert out.startswith("<!-- python run.py -m data=digits")
    assert out.count("| 2 |") == 4  # n
    code, out, err = clone.verb("report", start, start)
    assert (code, out.strip()) == (
        0,
        str(clone.root / "outputs" / "reports" / f"{start}-{start}" / "comparison.html"),
    )
    for words in ((start, start, "--format=csv"), (start, "--format=pdf"), (start, runs[0].info.run_id)):
        code, out, err = clone.verb("report", *words)
        assert (code, out) == (2, "")
        assert "Traceback" not in err


def test_a_sweep_that_wants_no_pictures_has_no_report_but_a_description(clone):
    code, out, _ = clone.quick(
        *("-m", "data=digits", "trainer.epochs=1", "seed=0,1", "model=logreg"),
        *("tracking.pictures=none", "hydra.launcher.n_jobs=1"),
    )
    assert code == 0
    assert "Report:" not in out
    _, parent, runs = runs_of(clone)
    assert parent.data.metrics["runs"] == 2
    assert {key.split("/")[1] for key in runs[0].data.metrics if key.startswith("space/")} == {"input"}
    assert not list((clone.root / "outputs" / "sweeps").rglob("report.html"))
