"""`tracking.weights`: which runs keep their weights, and what is said where a run has none."""

import pytest
import torch
from helpers.composing import refusal
from mlflow import MlflowClient

import lockstep
from lockstep.cli.reproduce import reproduce
from lockstep.config.errors import Refused
from lockstep.recovery.run_folder import unfinished
from lockstep.tracking.store import Store
from lockstep.training import artifacts

SWEEP = (
    *("data=digits", "model=logreg", "optim.lr=0.001,0.1", "trainer.epochs=1", "tracking.pictures=none"),
    *("hydra.launcher.n_jobs=1", "tracking.experiment=digits"),
)


@pytest.fixture
def swept(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return lambda *overrides: lockstep.sweep(*SWEEP, *overrides)


def with_weights(client, sweep):
    folders = {
        run.name: [entry.path for entry in client.list_artifacts(run.id, "model")] for run in sweep.runs
    }
    return sorted(name for name, files in folders.items() if artifacts.WEIGHTS in files)


def test_weights_are_kept_of_all_runs_of_the_best_or_of_none(swept, uri):
    client = MlflowClient(uri)
    none = swept("tracking.weights=none")
    assert with_weights(client, none) == []
    assert client.search_logged_models(["1"]) == []
    with pytest.raises(Refused) as caught:
        none.winner.network()
    assert str(caught.value) == (
        "lr=0.1 has no weights (tracking.weights=none); to train it with them, give tracking.weights=all"
        " rerun=true"
    )
    again = reproduce(Store(uri), none.winner.id)
    assert again.is_identical, [*again.lines()]

    # Not part of a run's identity: nothing is trained, and the best run still has none.
    assert all(run.is_stored for run in swept("tracking.weights=best").runs)

    best = swept("tracking.weights=best", "rerun=true")
    assert with_weights(client, best) == [best.winner.name] == ["lr=0.1"]
    assert len(client.search_logged_models(["1"])) == 1
    assert [path for path in unfinished().iterdir() if path.is_dir()] == []

    every = swept("tracking.weights=all", "rerun=true")
    assert with_weights(client, every) == ["lr=0.001", "lr=0.1"]
    weights = [run.network().state_dict() for run in (best.winner, every.winner)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_pictures_of_the_best_run_need_its_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    [line] = refusal("tracking.pictures=best", "tracking.weights=none")
    assert line.startswith(
        "tracking.weights=none: tracking.pictures=best draws from the best run's weights; "
    )
