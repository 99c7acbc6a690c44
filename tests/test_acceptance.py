"""The workshop's figures on real MNIST: skipped, with the reason, where it can't be had."""

import pytest
from test_train import LOGREG

from lockstep.config import (
    DownloadedConfig,
    MLPConfig,
    Refused,
    RunConfig,
    SGDConfig,
    TrackingConfig,
    TrainerConfig,
)
from lockstep.data import load
from lockstep.train import train

pytestmark = pytest.mark.mnist

MLP = MLPConfig(
    name="mlp", hidden_dim1=256, hidden_dim2=100, hidden_dims=(256, 100), dropout=0.25, activation="relu"
)
STREAM = DownloadedConfig(name="mnist", batch_size=64, drop_last=True, val_size=0, shuffle_seed=0, root=None)


@pytest.fixture(scope="module")
def mnist():
    try:
        return load(STREAM)
    except Refused as refused:
        pytest.skip(f"MNIST can't be had here: {refused}")


@pytest.mark.parametrize(("model", "least"), [(LOGREG, 0.917), (MLP, 0.976)], ids=["logreg", "mlp"])
def test_workshop_settings_reach_the_workshops_accuracy(mnist, model, least):
    config = RunConfig(
        model=model,
        optim=SGDConfig(name="sgd", lr=0.01, momentum=0.9, nesterov=False, weight_decay=0.0),
        data=STREAM,
        trainer=TrainerConfig(epochs=10, device="cpu", precision="float32", log_every=50),
        tracking=TrackingConfig(uri="unused", experiment="unused", pictures="all"),
        seed=0,
    )
    [run] = train([config], mnist)
    assert run.history.of("test")[-1].accuracy >= least
