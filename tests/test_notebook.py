"""The example notebook: run by a kernel with small settings, and as it is committed."""

import nbformat
import pytest
from helpers.clone import REPOSITORY
from nbclient import NotebookClient

import lockstep

EXAMPLE = REPOSITORY / "examples" / "workshop.ipynb"
SMALL = [
    *("data=digits", "data.val_size=300", "data.batch_size=64", "trainer.epochs=2"),
    *("tracking.pictures=none", "hydra.launcher.n_jobs=1"),
]


@pytest.fixture
def executed(tmp_path, empty_store, monkeypatch):
    """The example's code cells after a kernel has run them, with small settings; by what they begin with."""
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "mlflow.db").write_bytes(empty_store.read_bytes())
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    notebook = nbformat.read(EXAMPLE, nbformat.NO_CONVERT)
    for cell in notebook.cells:
        cell.source = cell.source.replace("SETTINGS = []", f"SETTINGS = {SMALL}").replace("= 64", "= 4")
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    return {
        cell.source.partition("\n")[0]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"
    }


def data_of(outputs, kind):
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def test_the_example_runs(executed):
    sweep = lockstep.load(data_of(executed["sweep"], "text/plain")[0].rpartition(" ")[2])
    assert {run.status for run in sweep.runs} == {"FINISHED"} and len(sweep.runs) == 4
    [table] = data_of(executed["sweep"], "text/html")
    assert table == sweep._html()
    for figure in ('logreg.figure("samples")', 'mlp.figure("hidden2")', "sweep"):
        assert len(data_of(executed[figure], "image/png")) == 1, figure
    [error] = executed['lockstep.sweep("optim.lr=0.1,-1", "model.hiden_dim1=128")']
    assert error.traceback[1] == "optim.lr=-1: must be greater than 0"  # the messages alone
    found = lockstep.load(data_of(executed["found"], "text/plain")[0].rpartition(" ")[2])
    assert len(found.runs) == 4 and found.winner.metrics["val/accuracy"] > 0


def test_the_committed_example_shows_its_pictures_and_names_no_folder_of_ours():
    notebook = nbformat.read(EXAMPLE, nbformat.NO_CONVERT)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(data_of(outputs, "image/png")) >= 6
    assert EXAMPLE.stat().st_size < 1_500_000
    text = EXAMPLE.read_text()
    assert "/tmp/" not in text and "/root/" not in text
    assert not [output for output in outputs if output.output_type == "error" and output.ename != "Refused"]
