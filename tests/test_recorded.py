"""What the Python API returns, against what MLflow and the runs' own files hold."""

import base64
from collections import Counter
from xml.etree import ElementTree

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

import lockstep
from lockstep.pictures import plots
from lockstep.terminal.console import console

SETTINGS = ("data=digits", "trainer.epochs=2", "hydra.launcher.n_jobs=1", "tracking.pictures=none")
FAILED = "optim.lr=0.1,1e30"  # the second diverges


@pytest.fixture(scope="module")
def root(tmp_path_factory, empty_store):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("recorded")
        (folder / "outputs").mkdir()
        (folder / "outputs" / "mlflow.db").write_bytes(empty_store.read_bytes())
        patch.setenv("LOCKSTEP_ROOT", str(folder))
        yield folder


@pytest.fixture(scope="module")
def sweep(root):
    """Two widths, one of them with a seed that diverges."""
    return lockstep.sweep(*SETTINGS, "model.hidden_dims=[16],[16,8]", "seed=0,1", FAILED)


@pytest.fixture(scope="module")
def client(root):
    return mlflow.MlflowClient(f"sqlite:///{root}/outputs/mlflow.db")


def test_a_failed_run_costs_the_others_nothing(sweep, client):
    assert [run.status for run in sweep.runs] == ["FINISHED", "FAILED"] * 4
    assert [run.reason[:8] for run in sweep.runs] == ["", "diverged"] * 4
    assert client.get_run(sweep.id).info.status == "FAILED"


def test_the_winner_is_the_recorded_one(sweep, client):
    tags = client.get_run(sweep.id).data.tags
    assert sweep.winner.id == tags["lockstep.winner"]
    assert sweep.winner in sweep.runs
    assert sweep.winner.config.seed == 0
    assert sweep.winner.config.optim.lr == 0.1
    assert sweep.winner.metrics == client.get_run(sweep.winner.id).data.metrics
    client.set_tag(sweep.id, "lockstep.winner", sweep.runs[-2].id)
    assert lockstep.load(sweep.id).winner.id == sweep.runs[-2].id  # read, not decided again
    client.set_tag(sweep.id, "lockstep.winner", sweep.winner.id)


def test_to_pandas_has_a_row_for_each_run(sweep):
    frame = sweep.to_pandas()
    assert list(frame.columns[:5]) == ["name", "model.hidden_dims", "optim.lr", "seed", "test/accuracy"]
    assert list(frame.columns[-3:]) == ["status", "seconds", "run_id"]
    assert frame["model.hidden_dims"].tolist() == [[16]] * 4 + [[16, 8]] * 4
    assert frame["optim.lr"].tolist() == [0.1, 1e30] * 4
    assert frame["seed"].tolist() == [0, 0, 1, 1] * 2
    assert frame["run_id"].tolist() == [run.id for run in sweep.runs]
    assert frame["status"].tolist() == ["FINISHED", "FAILED"] * 4
    finished = frame[frame["status"] == "FINISHED"]
    assert finished["test/accuracy"].tolist() == [
        run.metrics["test/accuracy"] for run in sweep.runs if run.status == "FINISHED"
    ]
    assert (finished["seconds"] > 0).all()
    assert frame["seconds"].isna().tolist() == ["time/train_seconds" not in run.metrics for run in sweep.runs]


def test_as_text_it_is_the_terminals_table(sweep, monkeypatch):
    monkeypatch.setattr(console, "width", 120)
    heading, *rows, last = repr(sweep).splitlines()
    assert heading.split() == ["run", "n", "test", "accuracy", "test", "loss", "training", "status", "id"]
    assert "FAILED: diverged" in rows[0]
    assert all("s  FINISHED" in row and " ± " in row for row in rows[-2:])
    assert last == f"hidden_dims x seed x lr, 8 runs: {sweep.id}"
    [accuracy] = [f"test/accuracy {sweep.winner.metrics['test/accuracy']:.4f}"]
    assert repr(sweep.winner) == f"<Run {sweep.winner.id}: {sweep.winner.name}, FINISHED, {accuracy}>"


def test_the_network_is_the_trained_one(sweep, client):
    run, network = sweep.winner, sweep.winner.network()
    data = run.dataset()
    assert not network.training
    accuracy = (network(data.x_test).argmax(1) == data.y_test).float().mean().item()
    assert accuracy == pytest.approx(run.metrics["test/accuracy"], abs=1e-6)
    folder = client.get_run(run.id).info.artifact_uri.removeprefix("file://")
    weights = torch.load(f"{folder}/model/state_dict.pt")
    assert all(torch.equal(weights[key], tensor) for key, tensor in network.state_dict().items())
    diverged = sweep.runs[1]
    with pytest.raises(lockstep.Refused, match=rf"{diverged.id}, FAILED\): model/state_dict.pt can't be"):
        diverged.network()


def test_the_history_has_every_iteration_and_epoch(sweep, client):
    history = sweep.winner.history()
    scores = ["loss", "accuracy", "balanced_accuracy", "f1_macro"]
    assert list(history.columns) == ["epoch", "iteration", "split", *scores]
    train, test = (history[history["split"] == split] for split in ("train", "test"))
    assert train["iteration"].tolist() == list(range(1, 45))
    assert train["epoch"].tolist() == [1] * 22 + [2] * 22
    assert test["epoch"].tolist() == [1, 2]
    points = client.get_metric_history(sweep.winner.id, "test/loss")
    assert test["loss"].tolist() == [point.value for point in sorted(points, key=lambda point: point.step)]
    assert sweep.runs[1].history()["epoch"].tolist() == [1, 1]  # diverged in its second iteration


def test_figures_are_the_artifacts_pictures(root):
    [run] = lockstep.sweep(*SETTINGS, "model.hidden_dims=[16]", "tracking.pictures=all").runs
    files = {
        **{"loss": "curves/loss.png", "accuracy": "curves/accuracy.png", "samples": "samples.png"},
        **{"input": "pca/input.png", "hidden1": "pca/hidden1.png"},
    }
    [folder] = (root / "outputs" / "artifacts").rglob(f"{run.id}/artifacts")
    for picture, file in files.items():
        plots.save(run.figure(picture), root / "again.png")
        assert (root / "again.png").read_bytes() == (folder / file).read_bytes(), picture
    for picture in ("confusion", "mistakes"):  # Pillow writes these files: their pixels are compared
        run.figure(picture).savefig(root / "again.png")
        again, file = (
            np.asarray(Image.open(path).convert("RGB"), int)
            for path in (root / "again.png", folder / f"{picture}.png")
        )
        assert again.shape == file.shape
        assert np.abs(again - file).max() <= 1, picture
    with pytest.raises(lockstep.Refused, match=r"figure hiden1: not one of loss, .*; did you mean hidden1\?"):
        run.figure("hiden1")


def test_a_notebook_shows_the_table_and_the_curves_without_javascript(sweep):
    html = sweep._repr_html_()
    page = ElementTree.fromstring(f"<page>{html}</page>".replace('">', '"/>'))  # each <img> ends itself
    head = [cell.text for cell in page.iterfind("table/thead/tr/th")]
    rows = [["".join(cell.itertext()) for cell in row] for row in page.iterfind("table/tbody/tr")]
    assert head[:3] == ["run", "n", "test accuracy"]
    assert len(rows) == 6
    cells = [row.find("td/b") for row in page.iterfind("table/tbody/tr")]
    [bold] = [cell.text for cell in cells if cell is not None]
    assert bold == rows[-2][0] == "16 lr=0.1"
    png = base64.b64decode(page.find("img").get("src").removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG")
    assert "script" not in html


def test_load_finds_runs_and_sweeps_by_the_start_of_their_ids(sweep):
    assert repr(lockstep.load(sweep.id[:12])) == repr(sweep)
    assert lockstep.load(sweep.winner.id).metrics == sweep.winner.metrics
    for id_, message in (("zz", "no run id"), ("%", "no run id"), ("", "no run id"), ("0" * 32, "no run in")):
        with pytest.raises(lockstep.Refused, match=f"^{id_}: {message}"):
            lockstep.load(id_)
    starts = Counter(run.id[0] for run in sweep.runs)
    [(start, count)] = starts.most_common(1)
    if count > 1:
        with pytest.raises(lockstep.Refused, match=f"^{start}: \\d+ runs have ids that start so"):
            lockstep.load(start)


def test_load_makes_no_store(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    with pytest.raises(lockstep.Refused, match=r"mlflow.db: there is no such store"):
        lockstep.load("0")
    assert list(tmp_path.iterdir()) == []
