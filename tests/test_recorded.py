"""What the Python API returns, against what MLflow and the runs' own files hold."""

import mlflow
import pytest

import lockstep
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
    assert heading.split() == ["run", "n", "test", "accuracy", "test", "loss", "training", "status"]
    assert "FAILED: diverged" in rows[0]
    assert all(row.endswith("s  FINISHED") and " ± " in row for row in rows[-2:])
    assert last == f"sweep of 8 runs: {sweep.id}"
    [accuracy] = [f"test/accuracy {sweep.winner.metrics['test/accuracy']:.4f}"]
    assert repr(sweep.winner) == f"<Run {sweep.winner.id}: {sweep.winner.name}, FINISHED, {accuracy}>"
